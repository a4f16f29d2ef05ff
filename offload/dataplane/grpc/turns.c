/* Whose turn it is. Each turn of the loop gives every user that has sent something the same time, and all callers
 * without an identity together the time of one user; within it, connections are served one after the other by
 * connection_serve. So a user's first request waits for at most SHARE_NS of every other user, whatever those send and
 * over however many connections. Writing is shared in the same way: every user with answers waiting gets a separate
 * share for writing at the end of the turn, so that the answers of a turn are sent together.
 *
 * Callers without an identity rest after each share, even when nobody else has work: they can only be refused, and a
 * front that never sleeps has to wait for a processor like any program that computes, and so does everyone who depends
 * on it. Reading from them and writing to them alternate within the one share, so neither starves the other.
 *
 * Time is measured, not estimated: a peer pays for whatever it finds to be expensive. The turn of one connection is
 * bounded by bytes and work (budget.c, writing.c), so a share is exceeded only slightly.
 */
#include "offload/dataplane/grpc/turns.h"

#include "offload/dataplane/grpc/principal.h"
#include "offload/dataplane/grpc/writing.h"
#include "offload/dataplane/host/monotonic.h"

#define REST_NS 900000u  /* for strangers: a tenth of the time is theirs */
#define SHARE_NS 100000u /* 100 us: three P-256 signatures in software, so others are delayed no longer than that */

void turns_add(connection *it) {
  principal *of = it->principal;
  if (it->closed || of == NULL || !list_empty(&it->ready)) return;
  list_push(&of->ready, &it->ready);
  if (!list_empty(&of->turn)) return;
  list_push(of->is_stranger ? &it->front->stranger_turns : &it->front->turns, &of->turn);
}

void turns_add_writing(connection *it) {
  principal *of = it->principal;
  if (it->closed || of == NULL || !list_empty(&it->dirty)) return;
  list_push(&of->dirty, &it->dirty);
  if (!list_empty(&of->writing)) return;
  list_push(of->is_stranger ? &it->front->stranger_writers : &it->front->writers, &of->writing);
}

static void leave_ready(connection *it) {
  list_remove(&it->ready);
  if (it->principal != NULL && list_empty(&it->principal->ready)) list_remove(&it->principal->turn);
}

static void leave_dirty(connection *it) {
  list_remove(&it->dirty);
  if (it->principal != NULL && list_empty(&it->principal->dirty)) list_remove(&it->principal->writing);
}

void turns_remove(connection *it) {
  leave_ready(it);
  leave_dirty(it);
}

static void serve_one(principal *of) {
  connection *it = LIST_ENTRY(of->ready.next, connection, ready);
  leave_ready(it);
  principal_review(it);
  if (connection_serve(it)) turns_add(it);
}

static void write_one(principal *of) {
  connection *it = LIST_ENTRY(of->dirty.next, connection, dirty);
  leave_dirty(it);
  writing_flush(it);
}

/* When its share is over and it has more, the user goes to the end of the line. */
static void queue_again(list_node *line, list_node *place, const list_node *waiting) {
  if (!list_empty(waiting) && list_empty(place)) list_push(line, place);
}

/* ---- users that have an identity ---- */

static void serve_user(front *front, principal *it) {
  uint64_t until = monotonic_ns() + SHARE_NS;
  principal_hold(it);
  do {
    serve_one(it);
  } while (!list_empty(&it->ready) && monotonic_ns() < until);
  queue_again(&front->turns, &it->turn, &it->ready);
  principal_release(it);
}

static void write_to_user(front *front, principal *it) {
  uint64_t until = monotonic_ns() + SHARE_NS;
  principal_hold(it);
  do {
    write_one(it);
  } while (!list_empty(&it->dirty) && monotonic_ns() < until);
  queue_again(&front->writers, &it->writing, &it->dirty);
  principal_release(it);
}

void turns_write(front *front) {
  list_node writers;
  list_init(&writers);
  list_splice(&writers, &front->writers);
  for (list_node *node; (node = list_pop(&writers)) != NULL;) {
    write_to_user(front, LIST_ENTRY(node, principal, writing));
  }
}

/* ---- strangers ---- */

static void serve_a_stranger(front *front) {
  list_node *first = list_pop(&front->stranger_turns);
  if (first == NULL) return;
  principal *it = LIST_ENTRY(first, principal, turn);
  principal_hold(it);
  serve_one(it);
  queue_again(&front->stranger_turns, &it->turn, &it->ready);
  principal_release(it);
}

static void write_to_a_stranger(front *front) {
  list_node *first = list_pop(&front->stranger_writers);
  if (first == NULL) return;
  principal *it = LIST_ENTRY(first, principal, writing);
  principal_hold(it);
  write_one(it);
  queue_again(&front->stranger_writers, &it->writing, &it->dirty);
  principal_release(it);
}

static bool strangers_wait(const front *front) {
  return !list_empty(&front->stranger_turns) || !list_empty(&front->stranger_writers);
}

/* Serves one connection of each in turn, for the share of one user; then they rest. */
static void serve_strangers(front *front) {
  uint64_t began = monotonic_ns(), until = began + SHARE_NS;
  if (began < front->strangers_rest_until) return;
  do {
    serve_a_stranger(front);
    write_to_a_stranger(front);
  } while (strangers_wait(front) && monotonic_ns() < until);
  if (strangers_wait(front)) front->strangers_rest_until = until + REST_NS;
}

/* ---- all of them ---- */

uint64_t turns_next(const front *front) {
  if (!list_empty(&front->turns) || !list_empty(&front->writers)) return 0;
  return strangers_wait(front) ? front->strangers_rest_until : NEVER;
}

void turns_serve(front *front) {
  list_node turns;
  list_init(&turns);
  list_splice(&turns, &front->turns);
  for (list_node *node; (node = list_pop(&turns)) != NULL;) serve_user(front, LIST_ENTRY(node, principal, turn));
  if (strangers_wait(front)) serve_strangers(front);
}
