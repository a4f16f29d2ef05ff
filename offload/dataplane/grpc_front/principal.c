/* Users: who holds what, and how much of it they may hold. Bounds per connection alone are no bounds, since a user can
 * have thousands of them.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* The name of the socket that all users share; any other is dedicated to whom it is mounted into. */
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
  batch_group_init(&it->batch);
  list_push(&front->principals, &it->link);
  return it;
}

bool principal_join(connection *it, bool is_stranger) {
  front *front = it->front;
  principal *found = principal_find(front, it->caller.uid, it->caller.listener, is_stranger);
  if (found == NULL) found = make(front, &it->caller, is_stranger);
  if (found == NULL) return false;
  found->connections++;
  found->memory += it->memory;
  if (is_stranger) {
    front->stranger_connections++;
    front->stranger_memory += it->memory;
  }
  it->principal = found;
  it->standing_generation = front->ring->generation;
  it->batch.group = &found->batch;
  return true;
}

void principal_hold(principal *it) {
  it->connections++;
}

void principal_release(principal *it) {
  if (--it->connections > 0) return;
  list_remove(&it->link);
  list_remove(&it->turn);
  free(it->socket);
  free(it);
}

void principal_leave(connection *it) {
  principal *left = it->principal;
  if (left == NULL) return;
  turns_remove(it);
  left->memory -= it->memory;
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

void principal_review(connection *it) {
  front *front = it->front;
  if (it->standing_generation == front->ring->generation) return;
  it->standing_generation = front->ring->generation;
  bool is_stranger = !principal_is_known(front, &it->caller);
  /* What is queued counts for the user it was accepted for. */
  if (is_stranger == it->principal->is_stranger || it->batch.load > 0) return;
  principal *before = it->principal;
  principal_hold(before);
  principal_leave(it);
  bool moved =
      principal_join(it, is_stranger) || !principal_join(it, before->is_stranger); /* the latter has its user */
  principal_release(before);
  if (moved) submit_streams(it);
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
