/* Graceful shutdown: no accepted operation is lost, and a client knows of each operation that was not accepted.
 *
 *   1. DRAIN_NOTICE: listeners accept the connections that are waiting, and close. Every connection gets GOAWAY with
 *      the highest stream id (stop opening calls here) and a PING. Calls that cross the notice on the wire are served
 *      as usual.
 *   2. DRAIN_FINAL, when the PING is answered (or after a second): GOAWAY with the last call that was seen; a client
 *      then knows that its later calls were never looked at, and gRPC retries them by itself. Watch calls are ended.
 *   3. Unary calls end by themselves. A Stream is ended with UNAVAILABLE once it has been quiet for QUIET_TIME; from
 *      half of the drain timeout on, operations of busy ones are answered UNAVAILABLE, so that they become quiet.
 *   4. A connection without calls is closed, by the client or after LINGER_TIME: a call that it was about to write
 *      should find GOAWAY, not a broken pipe, after which gRPC could not know whether to retry. At the drain timeout,
 *      every connection is closed.
 */
#include "offload/dataplane/grpc/drain.h"

#include <string.h>

#include "offload/dataplane/grpc/call.h"
#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/listener.h"

#define QUIET_TIME 50000000u    /* 50 ms */
#define LINGER_TIME 200000000u  /* 200 ms */
#define ANSWER_TIME 1000000000u /* 1 s for the answer to the PING */

/* More than any listen queue holds; callers that connect faster than they are accepted must not keep the daemon from
 * ending. */
enum { ACCEPT_ROUNDS = 4096 };

static const uint8_t ping_mark[8] = {'d', 'r', 'a', 'i', 'n', 'i', 'n', 'g'};

static void set_phase(front *front, drain_phase phase) {
  front->drain = phase;
  atomic_store_explicit(&front->draining, phase != DRAIN_NOT, memory_order_relaxed);
}

void drain_connection(connection *it) {
  if (it->drain != DRAIN_NOT) return; /* it was idle, and has been sent GOAWAY already */
  it->drain = DRAIN_NOTICE;
  nghttp2_submit_shutdown_notice(it->session);
  nghttp2_submit_ping(it->session, NGHTTP2_FLAG_NONE, ping_mark);
  connection_mark_dirty(it);
}

void drain_go_away(connection *it) {
  it->drain = DRAIN_FINAL;
  it->drain_final_at = it->front->now;
  int32_t last = nghttp2_session_get_last_proc_stream_id(it->session);
  nghttp2_submit_goaway(it->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
  connection_mark_dirty(it);
  for (list_node *node = it->calls.next, *next; node != &it->calls; node = next) {
    next = node->next;
    call *open = LIST_ENTRY(node, call, link);
    open->busy_at = it->front->now;
    if (open->method != NULL && open->method->drain == DRAIN_ENDS) {
      call_finish(open, RPC_UNAVAILABLE, "the daemon is draining: reconnect");
    }
  }
}

void drain_acknowledged(connection *it) {
  if (it->drain == DRAIN_NOTICE) drain_go_away(it);
}

void drain_begin(front *front) {
  if (front->drain != DRAIN_NOT) return;
  set_phase(front, DRAIN_NOTICE);
  front->drain_began = front->now;
  for (list_node *node = front->connections.next; node != &front->connections; node = node->next) {
    drain_connection(LIST_ENTRY(node, connection, link));
  }
  while (!list_empty(&front->listeners)) {
    listener *it = LIST_ENTRY(front->listeners.next, listener, link);
    for (unsigned rounds = 0; rounds < ACCEPT_ROUNDS && listener_accept_last(front, it); rounds++) continue;
    listener_close(front, it);
  }
}

static void end_quiet_streams(connection *it) {
  uint64_t now = it->front->now;
  for (list_node *node = it->calls.next, *next; node != &it->calls; node = next) {
    next = node->next;
    call *open = LIST_ENTRY(node, call, link);
    if (open->method == NULL || open->method->drain != DRAIN_ENDS_QUIET || open->finished || open->held > 0) continue;
    if (now - open->busy_at < QUIET_TIME) continue;
    call_finish(open, RPC_UNAVAILABLE, "the daemon is draining: reconnect and retry");
  }
}

void drain_turn(front *front) {
  if (front->drain == DRAIN_NOT) return;
  uint64_t elapsed = front->now - front->drain_began;
  for (list_node *node = front->connections.next, *next; node != &front->connections; node = next) {
    next = node->next;
    connection *it = LIST_ENTRY(node, connection, link);
    if (elapsed >= front->settings.drain_timeout_ns) {
      connection_close(it);
      continue;
    }
    if (it->drain == DRAIN_NOTICE && elapsed >= ANSWER_TIME) drain_go_away(it);
    if (it->drain != DRAIN_FINAL) continue;
    end_quiet_streams(it);
    if (it->call_count == 0 && !drain_lingers(it)) connection_mark_dirty(it); /* flushing closes it */
  }
}

bool drain_lingers(const connection *it) {
  return it->drain == DRAIN_FINAL && it->front->now - it->drain_final_at < LINGER_TIME;
}

bool drain_refuses(const call *call) {
  const front *front = call->connection->front;
  return front->drain != DRAIN_NOT && call->method->drain == DRAIN_ENDS_QUIET &&
         call->connection->drain == DRAIN_FINAL &&
         front->now - front->drain_began >= front->settings.drain_timeout_ns / 2;
}
