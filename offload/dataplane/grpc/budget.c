/* What a connection makes us do in its turn, counted where it is done. Bytes received are no measure of it: one byte of
 * HPACK can stand for a header of four kilobytes, and two bytes of a message for an operation that has to be refused.
 *
 * Counted are bytes of header fields as they come out of HPACK (about a nanosecond each, for their check), and so many
 * for a frame, a header, an operation and a call. A connection that has spent WORK_PER_TURN stops, in the middle of a
 * header block if need be, and goes on when it is its turn again. So does one that has OUTBOUND_MAX answers waiting:
 * they are written first.
 */
#include "offload/dataplane/grpc/budget.h"

void budget_spend(connection *it, uint32_t work) {
  it->work += work;
}

bool budget_is_spent(const connection *it) {
  return it->work >= WORK_PER_TURN || nghttp2_session_get_outbound_queue_size(it->session) >= OUTBOUND_MAX;
}
