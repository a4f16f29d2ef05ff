/* The work that a connection causes in its turn, counted where it is done. The bytes received do not measure it: one
 * byte of HPACK can stand for a header of four kilobytes, and two bytes of a message for an operation that has to be
 * refused.
 *
 * The unit is a byte of a decoded header field (its check takes about a nanosecond); a frame, a header, an operation
 * and a call cost fixed amounts. A connection that has spent WORK_PER_TURN stops, in the middle of a header block if
 * need be, and continues in its next turn. So does a connection with OUTBOUND_MAX answers waiting: they are written
 * first.
 */
#include "offload/dataplane/grpc/budget.h"

void budget_spend(connection *it, uint32_t work) {
  it->work += work;
}

bool budget_is_spent(const connection *it) {
  return it->work >= WORK_PER_TURN || nghttp2_session_get_outbound_queue_size(it->session) >= OUTBOUND_MAX;
}
