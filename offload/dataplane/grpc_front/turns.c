/* Who is dealt with next. Each turn of the loop gives every user that has sent something the same time, and all callers
 * without an identity together that of one user; within it, connections are served one after the other, each with what
 * connection_serve does for one. So a user's first request waits for at most SHARE_NS of every other user, whatever
 * those send and over however many connections.
 *
 * Callers without an identity rest after each share, also when nobody else wants anything: they can only be refused,
 * and a front that never sleeps has to wait for a processor like any program that computes, with everybody who depends
 * on it.
 *
 * Time is measured, not estimated: whatever a peer finds out to be expensive, it pays for. What one turn of a
 * connection can take is bounded by bytes and work (budget.c), so a share is overdrawn by little.
 */
#include "../monotonic.h"
#include "internal.h"

#define REST_NS 900000u  /* of strangers: a tenth of the time is theirs */
#define SHARE_NS 100000u /* 100 us: three signatures with P-256 in software, so others are not held up for longer */

void turns_add(connection *it) {
  principal *of = it->principal;
  if (it->closed || of == NULL || !list_empty(&it->ready)) return;
  list_push(&of->ready, &it->ready);
  if (!list_empty(&of->turn)) return;
  list_push(of->is_stranger ? &it->front->stranger_turns : &it->front->turns, &of->turn);
}

void turns_remove(connection *it) {
  list_remove(&it->ready);
  if (it->principal != NULL && list_empty(&it->principal->ready)) list_remove(&it->principal->turn);
}

static void serve_one(principal *of) {
  connection *it = LIST_ENTRY(of->ready.next, connection, ready);
  turns_remove(it);
  principal_review(it);
  if (connection_serve(it)) turns_add(it);
}

/* The user's place is at the end of the line when its share is over and it has more. */
static void queue_again(principal *it, list_node *turns) {
  if (!list_empty(&it->ready) && list_empty(&it->turn)) list_push(turns, &it->turn);
}

static void serve_user(front *front, principal *it) {
  uint64_t until = monotonic_ns() + SHARE_NS;
  principal_hold(it);
  do {
    serve_one(it);
  } while (!list_empty(&it->ready) && monotonic_ns() < until);
  queue_again(it, &front->turns);
  principal_release(it);
}

/* One connection of each in turn, for the share of one user; then they rest. */
static void serve_strangers(front *front) {
  uint64_t began = monotonic_ns(), until = began + SHARE_NS;
  if (began < front->strangers_rest_until) return;
  do {
    principal *it = LIST_ENTRY(list_pop(&front->stranger_turns), principal, turn);
    principal_hold(it);
    serve_one(it);
    queue_again(it, &front->stranger_turns);
    principal_release(it);
  } while (!list_empty(&front->stranger_turns) && monotonic_ns() < until);
  if (!list_empty(&front->stranger_turns)) front->strangers_rest_until = until + REST_NS;
}

uint64_t turns_next(const front *front) {
  if (!list_empty(&front->turns)) return 0;
  return list_empty(&front->stranger_turns) ? NEVER : front->strangers_rest_until;
}

void turns_serve(front *front) {
  list_node turns;
  list_init(&turns);
  list_splice(&turns, &front->turns);
  for (list_node *node; (node = list_pop(&turns)) != NULL;) serve_user(front, LIST_ENTRY(node, principal, turn));
  if (!list_empty(&front->stranger_turns)) serve_strangers(front);
}
