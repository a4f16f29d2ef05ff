/* Timeouts of connections. All timeouts of a kind have the same length, so a list in the order in which they began is
 * enough.
 *
 * idle      A connection without any call for idle_timeout gets GOAWAY, after which gRPC clients reconnect when they
 *           have a request, and is closed a little later: a call that crosses the notice should find GOAWAY, not a
 *           broken pipe. A watcher of an identity always has a call.
 * stalled   The peer takes nothing of what waits for it for stalled_timeout: it hangs, or aims to exhaust our memory.
 */
#include "offload/dataplane/grpc/timeouts.h"

#include "offload/dataplane/grpc/drain.h"

#define LINGER_TIME 200000000u /* 200 ms */

/* The most of each kind in a turn of the loop: thousands may have begun at the same moment, and closing one takes
 * microseconds.
 */
enum { ENDED_PER_TURN = 32 };

#define FIRST(list, member) LIST_ENTRY((list)->next, connection, member)

static uint64_t due(uint64_t since, uint64_t timeout) {
  return since >= NEVER - timeout ? NEVER : since + timeout;
}

static uint64_t idle_due(const front *front) {
  if (list_empty(&front->idle)) return NEVER;
  return due(FIRST(&front->idle, idle)->idle_since, front->settings.idle_timeout_ns);
}

static uint64_t stalled_due(const front *front) {
  if (list_empty(&front->stalled)) return NEVER;
  return due(FIRST(&front->stalled, stalled)->stalled_since, front->settings.stalled_timeout_ns);
}

static uint64_t leaving_due(const front *front) {
  if (list_empty(&front->leaving)) return NEVER;
  return due(FIRST(&front->leaving, leaving)->leaving_since, LINGER_TIME);
}

uint64_t timeouts_next(const front *front) {
  uint64_t next = idle_due(front), stalled = stalled_due(front), leaving = leaving_due(front);
  if (stalled < next) next = stalled;
  return leaving < next ? leaving : next;
}

void timeouts_note_idle(connection *it) {
  if (it->closed || !list_empty(&it->leaving)) return;
  it->idle_since = it->front->now;
  list_remove(&it->idle);
  list_push(&it->front->idle, &it->idle);
}

void timeouts_note_sent(connection *it, bool progressed) {
  if (it->unsent == NULL && it->owed == 0) {
    list_remove(&it->stalled);
  } else if (progressed || list_empty(&it->stalled)) {
    it->stalled_since = it->front->now;
    list_remove(&it->stalled);
    list_push(&it->front->stalled, &it->stalled);
  }
}

static void tell_to_leave(connection *it) {
  list_remove(&it->idle);
  if (it->drain == DRAIN_NOT) drain_go_away(it);
  it->leaving_since = it->front->now;
  list_push(&it->front->leaving, &it->leaving);
}

/* A call with a stream id up to the one that GOAWAY named may have come meanwhile; it is answered. */
static void end_leaving(connection *it) {
  list_remove(&it->leaving);
  if (it->call_count == 0) connection_close(it);
}

static void end_stalled(connection *it) {
  refusals_add(it->front->refusals, REFUSED_STALLED, &it->caller, NULL);
  connection_close(it);
}

void timeouts_pass(front *front) {
  for (unsigned i = 0; i < ENDED_PER_TURN; i++) {
    if (stalled_due(front) <= front->now) end_stalled(FIRST(&front->stalled, stalled));
    if (leaving_due(front) <= front->now) end_leaving(FIRST(&front->leaving, leaving));
    if (idle_due(front) <= front->now) tell_to_leave(FIRST(&front->idle, idle));
  }
}
