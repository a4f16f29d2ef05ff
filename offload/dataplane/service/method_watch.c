/* WatchIdentity: the identity's public message now, and again whenever it changes. A watcher that is slow gets the
 * latest message when it is ready for it, not every one in between. An unknown identity and one of somebody else look
 * the same.
 */
#include <stdlib.h>
#include <string.h>

#include "offload/dataplane/grpc/internal.h"

_Static_assert(IDENTITY_NAME_MAX == 2048, "the text says so");
const char watch_name_too_long[] = "the name of an identity is longer than 2048 bytes";

void watch_owes(call *it, bool owes) {
  if (it->owes == owes) return;
  it->owes = owes;
  it->connection->owed += owes ? 1 : (uint32_t)-1;
}

/* Compares with the keyring in force; refuses the call or schedules a message. */
static void look(call *it) {
  connection *connection = it->connection;
  const keyring *ring = connection->front->ring;
  int32_t index = keyring_find_identity(ring, it->watched, it->watched_size);
  if (index < 0 || !admission_may_use(connection, (uint32_t)index)) {
    call_refuse(it, index < 0 ? REFUSED_UNKNOWN_IDENTITY : REFUSED_CALLER, RPC_NOT_FOUND,
                "no such identity, or this caller may not use it");
    return;
  }
  identity_message *message = ring->identities[index].message;
  if (identity_message_same(it->pending != NULL ? it->pending : it->sent, message)) return;
  identity_message_release(it->pending);
  it->pending = identity_message_retain(message);
  watch_owes(it, true);
  if (it->responded) {
    response_resume(it);
  } else {
    response_open(it);
  }
}

static void message(call *it, wire_view bytes) {
  wire_view name;
  if (it->watched != NULL || wire_decode_watch_request(bytes, &name) != WIRE_OK) {
    call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "WatchIdentity takes one WatchIdentityRequest");
    return;
  }
  if (name.size > IDENTITY_NAME_MAX) {
    call_refuse(it, REFUSED_TOO_LARGE, RPC_INVALID_ARGUMENT, watch_name_too_long);
    return;
  }
  if (call_charge(it, name.size + 1)) it->watched = malloc(name.size + 1);
  if (it->watched == NULL) {
    call_refuse(it, REFUSED_USER_MEMORY, RPC_RESOURCE_EXHAUSTED, "no memory for more calls of this user");
    return;
  }
  if (name.size > 0) memcpy(it->watched, name.data, name.size);
  it->watched_size = name.size;
  front *front = it->connection->front;
  list_push(&front->watchers, &it->watching);
  counter_add_owned(&front->counters->watchers, 1);
  look(it);
}

void watch_keyring_changed(front *front) {
  for (list_node *node = front->watchers.next, *next; node != &front->watchers; node = next) {
    next = node->next; /* a refused watcher leaves the list */
    call *watcher = LIST_ENTRY(node, call, watching);
    if (watcher->method == &method_watch_identities) {
      watches_look(watcher);
    } else {
      look(watcher);
    }
  }
}

static void half_closed(call *it) {
  if (it->watched == NULL) call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "the request message is missing");
}

static size_t fill(call *it, uint8_t *to, size_t room) {
  if (it->sent == NULL || it->sent_at == it->sent->size) {
    if (it->pending == NULL) return 0;
    identity_message_release(it->sent);
    it->sent = it->pending;
    it->sent_at = 0;
    it->pending = NULL;
  }
  size_t size = it->sent->size - it->sent_at;
  if (size > room) size = room;
  memcpy(to, it->sent->frame + it->sent_at, size);
  it->sent_at += size;
  if (it->sent_at == it->sent->size && it->pending == NULL) watch_owes(it, false);
  return size;
}

const call_method method_watch = {.path = "/offload.v1.PrivateKeyService/WatchIdentity",
                                  .message = message,
                                  .half_closed = half_closed,
                                  .fill = fill};
