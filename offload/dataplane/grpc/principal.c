/* Users: what each holds, and how much it may hold. Bounds per connection alone would not bound anything, since a user
 * can have thousands of connections.
 */
#include "offload/dataplane/grpc/principal.h"

#include <stdlib.h>
#include <string.h>

#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/farewell.h"
#include "offload/dataplane/grpc/session.h"
#include "offload/dataplane/grpc/turns.h"
#include "offload/dataplane/host/monotonic.h"

/* Time for reviews in a turn of the loop: thousands of connections times hundreds of identities take longer than a
 * caller may wait. */
#define REVIEW_NS 50000u

/* The name of the socket that all users share; any other socket is dedicated to the workload that it is mounted
 * into. */
static const char main_socket[] = "main";

bool principal_is_dedicated(const char *listener) {
  return strcmp(listener, main_socket) != 0;
}

static const char *dedicated(const char *listener) {
  return principal_is_dedicated(listener) ? listener : NULL;
}

static bool is_of(const principal *it, uid_t uid, const char *socket, bool is_stranger) {
  if (it->is_stranger != is_stranger) return false;
  if (socket == NULL || it->socket == NULL) return socket == it->socket && it->uid == uid;
  return strcmp(it->socket, socket) == 0;
}

principal *principal_find(front *front, uid_t uid, const char *listener, bool is_stranger) {
  const char *socket = dedicated(listener);
  for (list_node *node = front->principals.next; node != &front->principals; node = node->next) {
    principal *it = LIST_ENTRY(node, principal, link);
    if (is_of(it, uid, socket, is_stranger)) return it;
  }
  return NULL;
}

bool principal_is_known(const front *front, const caller *caller) {
  for (uint32_t i = 0; i < front->ring->identity_count; i++) {
    const identity *it = &front->ring->identities[i];
    if (authorize_any(it->selectors, it->selector_count, caller)) return true;
  }
  return false;
}

bool principal_may_be_known(const front *front, uid_t uid, const char *listener) {
  for (uint32_t i = 0; i < front->ring->identity_count; i++) {
    const identity *it = &front->ring->identities[i];
    for (size_t j = 0; j < it->selector_count; j++) {
      if (authorize_could_match(&it->selectors[j], uid, listener)) return true;
    }
  }
  return false;
}

static principal *make(front *front, const caller *caller, bool is_stranger) {
  principal *it = calloc(1, sizeof *it);
  if (it == NULL) return NULL;
  const char *socket = dedicated(caller->listener);
  it->front = front;
  it->uid = caller->uid;
  it->is_stranger = is_stranger;
  it->socket = socket == NULL ? NULL : strdup(socket);
  if (socket != NULL && it->socket == NULL) {
    free(it);
    return NULL;
  }
  list_init(&it->turn);
  list_init(&it->ready);
  list_init(&it->writing);
  list_init(&it->dirty);
  batch_group_init(&it->batch);
  list_push(&front->principals, &it->link);
  return it;
}

static void note_reviewed(connection *it) {
  it->standing_generation = it->front->ring->generation;
  list_remove(&it->standing);
  list_push(&it->front->reviewed, &it->standing);
}

/* What the connection has queued and running moves with it. Takes the lock, since shards access the batcher. */
static void set_batch_group(connection *it, batch_group *group) {
  work_queue *work = it->front->work;
  if (it->batch.group == NULL) { /* new: no shard has seen it yet */
    it->batch.group = group;
    return;
  }
  pthread_mutex_lock(&work->lock);
  batcher_regroup(&work->batcher, &it->batch, group);
  pthread_mutex_unlock(&work->lock);
}

bool principal_join(connection *it, bool is_stranger) {
  front *front = it->front;
  principal *found = principal_find(front, it->caller.uid, it->caller.listener, is_stranger);
  if (found == NULL) found = make(front, &it->caller, is_stranger);
  if (found == NULL) return false;
  found->connections++;
  found->memory += it->memory;
  found->watches += it->watches;
  if (is_stranger) {
    front->stranger_connections++;
    front->stranger_memory += it->memory;
  }
  it->principal = found;
  note_reviewed(it);
  set_batch_group(it, &found->batch);
  return true;
}

void principal_hold(principal *it) {
  it->connections++;
}

void principal_release(principal *it) {
  if (--it->connections > 0) return;
  list_remove(&it->link);
  list_remove(&it->turn);
  list_remove(&it->writing);
  free(it->socket);
  free(it);
}

void principal_leave(connection *it) {
  principal *left = it->principal;
  if (left == NULL) return;
  turns_remove(it);
  left->memory -= it->memory;
  left->watches -= it->watches;
  if (left->is_stranger) {
    it->front->stranger_connections--;
    it->front->stranger_memory -= it->memory;
  }
  it->principal = NULL;
  principal_release(left);
}

static void submit_streams(connection *it) {
  nghttp2_settings_entry more = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, session_streams(it)};
  if (nghttp2_submit_settings(it->session, NGHTTP2_FLAG_NONE, &more, 1) == 0) connection_mark_dirty(it);
}

static bool change_standing(connection *it, bool is_stranger) {
  bool waits = !list_empty(&it->ready), is_dirty = !list_empty(&it->dirty);
  principal *before = it->principal;
  principal_hold(before);
  principal_leave(it);
  bool moved = principal_join(it, is_stranger);
  if (!moved) principal_join(it, before->is_stranger); /* it exists already, so this does not fail */
  principal_release(before);
  if (waits) turns_add(it);
  if (is_dirty) turns_add_writing(it);
  return moved;
}

/* A caller that has become a stranger may not hold more than strangers may. */
static void end_excess(connection *it) {
  front *front = it->front;
  if (front->stranger_connections > front->settings.max_connections_without_identity) {
    farewell_end(it, REFUSED_STRANGER_CONNECTIONS);
  } else if (front->stranger_memory > front->settings.user_memory) {
    farewell_end(it, REFUSED_USER_MEMORY);
  }
}

void principal_review(connection *it) {
  front *front = it->front;
  if (it->standing_generation == front->ring->generation) return;
  note_reviewed(it);
  bool is_stranger = !principal_is_known(front, &it->caller);
  if (is_stranger == it->principal->is_stranger || !change_standing(it, is_stranger)) return;
  submit_streams(it);
  if (is_stranger) end_excess(it);
}

void principals_review_all(front *front) {
  list_splice(&front->unreviewed, &front->reviewed);
}

void principals_review_some(front *front) {
  if (list_empty(&front->unreviewed)) return;
  uint64_t until = monotonic_ns() + REVIEW_NS;
  do {
    principal_review(LIST_ENTRY(front->unreviewed.next, connection, standing));
  } while (!list_empty(&front->unreviewed) && monotonic_ns() < until);
}

/* ---- watches ---- */

bool principal_may_watch(const connection *it) {
  return !it->principal->is_stranger || it->principal->watches < STRANGER_WATCHES;
}

void principal_count_watches(connection *it, int32_t more) {
  it->watches += (uint32_t)more;
  it->principal->watches += (uint32_t)more;
}

/* ---- memory ---- */

void principal_owe(connection *it, size_t bytes) {
  it->memory += bytes;
  it->principal->memory += bytes;
  if (it->principal->is_stranger) it->front->stranger_memory += bytes;
}

bool principal_charge(connection *it, size_t bytes) {
  front *front = it->front;
  principal *of = it->principal;
  size_t limit = front->settings.user_memory;
  if (of->memory + bytes > limit) return false;
  if (of->is_stranger && front->stranger_memory + bytes > limit) return false;
  principal_owe(it, bytes);
  return true;
}

void principal_repay(connection *it, size_t bytes) {
  it->memory -= bytes;
  it->principal->memory -= bytes;
  if (it->principal->is_stranger) it->front->stranger_memory -= bytes;
}
