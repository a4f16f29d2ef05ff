/* WatchIdentity: the identity's public message now, and again whenever it changes. A slow watcher gets the latest
 * message when it is ready for it, not every one in between. An unknown identity and another caller's identity look the
 * same.
 */
#include <stdlib.h>
#include <string.h>

#include "offload/dataplane/grpc/call.h"
#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/response.h"
#include "offload/dataplane/service/admission.h"
#include "offload/dataplane/service/identity_sending.h"
#include "offload/dataplane/service/private_key_service.h"

/* call->state, once the request message has come. */
typedef struct watched_identity {
  identity_sending sending;
  identity_message *pending; /* the next to be sent */
  size_t size;
  uint8_t name[];
} watched_identity;

/* Compares with the keyring in force; refuses the call or schedules a message. */
static void look(call *it) {
  watched_identity *watched = it->state;
  connection *connection = it->connection;
  const keyring *ring = connection->front->ring;
  int32_t index = keyring_find_identity(ring, watched->name, watched->size);
  if (index < 0 || !admission_may_use(connection, (uint32_t)index)) {
    call_refuse(it, index < 0 ? REFUSED_UNKNOWN_IDENTITY : REFUSED_CALLER, RPC_NOT_FOUND,
                "no such identity, or this caller may not use it");
    return;
  }
  identity_message *message = ring->identities[index].message;
  if (identity_message_same(watched->pending != NULL ? watched->pending : watched->sending.sent, message)) return;
  identity_message_release(watched->pending);
  watched->pending = identity_message_retain(message);
  identity_sending_owes(&watched->sending, connection, true);
  if (it->responded) {
    response_resume(it);
  } else {
    response_open(it);
  }
}

static watched_identity *remember(call *it, wire_view name) {
  size_t size = sizeof(watched_identity) + name.size;
  watched_identity *made = call_charge(it, size) ? malloc(size) : NULL;
  if (made == NULL) return NULL;
  *made = (watched_identity){.size = name.size};
  if (name.size > 0) memcpy(made->name, name.data, name.size);
  return made;
}

static void message(call *it, wire_view bytes) {
  wire_view name;
  if (it->state != NULL || wire_decode_watch_request(bytes, &name) != WIRE_OK) {
    call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "WatchIdentity takes one WatchIdentityRequest");
    return;
  }
  if (name.size > IDENTITY_NAME_MAX) {
    call_refuse(it, REFUSED_TOO_LARGE, RPC_INVALID_ARGUMENT, identity_name_too_long);
    return;
  }
  it->state = remember(it, name);
  if (it->state == NULL) {
    call_refuse(it, REFUSED_USER_MEMORY, RPC_RESOURCE_EXHAUSTED, "no memory for more calls of this user");
    return;
  }
  front *front = it->connection->front;
  list_push(&front->watchers, &it->watching);
  counter_add_owned(&front->counters->watchers, 1);
  look(it);
}

static void half_closed(call *it) {
  if (it->state == NULL) call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "the request message is missing");
}

static void describe(const call *it, refused_request *asked) {
  const watched_identity *watched = it->state;
  if (watched == NULL) return;
  asked->identity = watched->name;
  asked->identity_size = watched->size;
}

static size_t fill(call *it, uint8_t *to, size_t room) {
  watched_identity *watched = it->state;
  if (identity_sending_is_done(&watched->sending)) {
    if (watched->pending == NULL) return 0;
    identity_sending_begin(&watched->sending, watched->pending, 0);
    watched->pending = NULL;
  }
  size_t size = identity_sending_fill(&watched->sending, to, room);
  if (identity_sending_is_done(&watched->sending) && watched->pending == NULL) {
    identity_sending_owes(&watched->sending, it->connection, false);
  }
  return size;
}

static void finished(call *it) {
  if (it->state != NULL) counter_add_owned(&it->connection->front->counters->watchers, (uint64_t)-1);
}

static void freed(call *it) {
  watched_identity *watched = it->state;
  if (watched == NULL) return;
  identity_sending_free(&watched->sending, it->connection);
  identity_message_release(watched->pending);
  free(watched);
}

const call_method method_watch = {.path = "/offload.v1.PrivateKeyService/WatchIdentity",
                                  .drain = DRAIN_ENDS,
                                  .message = message,
                                  .half_closed = half_closed,
                                  .keyring_changed = look,
                                  .describe = describe,
                                  .fill = fill,
                                  .finished = finished,
                                  .freed = freed};
