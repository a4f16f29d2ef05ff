/* WatchIdentities: the messages of many identities in one call. Each watch has one place in the list of news, however
 * often its identity changes, so a client that does not read costs us no more memory than its names. Identity messages
 * are shared with the keyring: a response is a short prefix of its own, then the shared bytes.
 */
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "offload/dataplane/grpc/budget.h"
#include "offload/dataplane/grpc/call.h"
#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/message.h"
#include "offload/dataplane/grpc/principal.h"
#include "offload/dataplane/grpc/response.h"
#include "offload/dataplane/service/admission.h"
#include "offload/dataplane/service/identity_sending.h"
#include "offload/dataplane/service/private_key_service.h"

enum {
  WATCHES_MAX = 8192, /* more than an Envoy has listeners and clusters; each costs about 300 bytes */
  NAMES_MAX_SIZE = 1024 * 1024,
  TREE_MEMORY = 48,  /* what tsearch allocates for each */
  EXCESS_MAX = 1024, /* unread refusals of further watches, after which the call is refused */
};

typedef enum watch_state { WATCH_NEW, WATCH_TOLD, WATCH_REFUSED, WATCH_EXCESS } watch_state;

typedef struct watch {
  list_node link;            /* in watches->all */
  list_node news;            /* in watches->news while there is something to send */
  identity_message *message; /* WATCH_TOLD */
  watch_state state;
  size_t memory; /* charged to the user */
  size_t size;
  uint8_t name[];
} watch;

/* call->state. */
typedef struct watches {
  identity_sending sending;
  list_node all;
  list_node news; /* watches with something to send */
  void *tree;     /* all watches, by name */
  uint32_t count, excess;
  size_t bytes; /* total size of their names */
} watches;

_Static_assert(WIRE_WATCH_ITEMS_MAX == 256 && STRANGER_WATCHES == 4096, "the texts below say so");

static const char too_many[] = "a call watches at most 8192 identities, with names of 1 MiB together";

/* ---- the set ---- */

static int compare(const void *left, const void *right) {
  const watch *a = left, *b = right;
  if (a->size != b->size) return a->size < b->size ? -1 : 1;
  return memcmp(a->name, b->name, a->size);
}

static watch *new_watch(wire_view name) {
  watch *made = malloc(sizeof *made + name.size);
  if (made == NULL) return NULL;
  *made = (watch){.state = WATCH_NEW, .size = name.size};
  list_init(&made->link);
  list_init(&made->news);
  if (name.size > 0) memcpy(made->name, name.data, name.size);
  return made;
}

static void free_watch(call *call, watch *it) {
  principal_repay(call->connection, it->memory);
  list_remove(&it->link);
  list_remove(&it->news);
  identity_message_release(it->message);
  free(it);
}

static void remove_watch(call *call, watch *it) {
  watches *watches = call->state;
  tdelete(it, &watches->tree, compare);
  watches->count--;
  watches->bytes -= it->size;
  principal_count_watches(call->connection, -1);
  counter_add_owned(&call->connection->front->counters->watchers, (uint64_t)-1);
  free_watch(call, it);
}

static void finished(call *call) {
  watches *it = call->state;
  if (it == NULL) return;
  while (!list_empty(&it->all)) remove_watch(call, LIST_ENTRY(it->all.next, watch, link));
  while (!list_empty(&it->news)) free_watch(call, LIST_ENTRY(it->news.next, watch, news)); /* those above the limit */
}

static void freed(call *call) {
  watches *it = call->state;
  if (it == NULL) return;
  identity_sending_free(&it->sending, call->connection);
  free(it);
}

/* ---- news ---- */

static void tell(call *call, watch *it) {
  watches *watches = call->state;
  if (list_empty(&it->news)) list_push(&watches->news, &it->news);
  identity_sending_owes(&watches->sending, call->connection, true);
  response_resume(call);
}

/* Called after something was sent, or is no longer wanted. */
static void settle(call *call) {
  watches *it = call->state;
  if (identity_sending_is_done(&it->sending) && list_empty(&it->news)) {
    identity_sending_owes(&it->sending, call->connection, false);
  }
}

static void count_refusal(const call *call, refusal_reason reason, const watch *it) {
  refused_request asked = {.identity = it->name, .identity_size = it->size};
  refusals_add(call->connection->front->refusals, reason, &call->connection->caller, &asked);
}

/* Compares with the keyring in force. */
static void look(call *call, watch *it) {
  connection *connection = call->connection;
  const keyring *ring = connection->front->ring;
  int32_t index = keyring_find_identity(ring, it->name, it->size);
  if (index < 0 || !admission_may_use(connection, (uint32_t)index)) {
    if (it->state == WATCH_REFUSED) return;
    it->state = WATCH_REFUSED;
    identity_message_release(it->message);
    it->message = NULL;
    count_refusal(call, index < 0 ? REFUSED_UNKNOWN_IDENTITY : REFUSED_CALLER, it);
    tell(call, it);
    return;
  }
  identity_message *message = ring->identities[index].message;
  if (identity_message_same(it->message, message)) return;
  identity_message_release(it->message);
  it->message = identity_message_retain(message);
  it->state = WATCH_TOLD;
  tell(call, it);
}

static void keyring_changed(call *call) {
  watches *it = call->state;
  for (list_node *node = it->all.next; node != &it->all; node = node->next) {
    look(call, LIST_ENTRY(node, watch, link));
  }
}

/* ---- requests ---- */

static void start(call *it) {
  watches *made = call_charge(it, sizeof *made) ? calloc(1, sizeof *made) : NULL;
  if (made == NULL) {
    call_refuse(it, REFUSED_USER_MEMORY, RPC_RESOURCE_EXHAUSTED, "no memory for more calls of this user");
    return;
  }
  list_init(&made->all);
  list_init(&made->news);
  it->state = made;
  list_push(&it->connection->front->watchers, &it->watching);
  response_open(it);
}

/* False when the call was ended. */
static bool refuse_excess(call *it, watch *one) {
  watches *watches = it->state;
  if (watches->excess == EXCESS_MAX) {
    free_watch(it, one);
    call_refuse(it, REFUSED_TOO_MANY_WATCHES, RPC_RESOURCE_EXHAUSTED, too_many);
    return false;
  }
  watches->excess++;
  one->state = WATCH_EXCESS;
  count_refusal(it, REFUSED_TOO_MANY_WATCHES, one);
  tell(it, one);
  return true;
}

static bool add(call *it, wire_view name) {
  if (name.size > IDENTITY_NAME_MAX) {
    call_refuse(it, REFUSED_TOO_LARGE, RPC_INVALID_ARGUMENT, identity_name_too_long);
    return false;
  }
  watches *watches = it->state;
  size_t memory = sizeof(watch) + name.size + TREE_MEMORY;
  if (!principal_charge(it->connection, memory)) {
    call_refuse(it, REFUSED_USER_MEMORY, RPC_RESOURCE_EXHAUSTED, "no memory for more watches of this user");
    return false;
  }
  watch *made = new_watch(name);
  if (made == NULL) {
    principal_repay(it->connection, memory);
  } else {
    made->memory = memory;
  }
  watch **found = made == NULL ? NULL : tsearch(made, &watches->tree, compare);
  if (found == NULL) {
    if (made != NULL) free_watch(it, made);
    call_finish(it, RPC_RESOURCE_EXHAUSTED, "out of memory");
    return false;
  }
  if (*found != made) { /* it was watched already */
    free_watch(it, made);
    return true;
  }
  if (watches->count == WATCHES_MAX || watches->bytes + name.size > NAMES_MAX_SIZE) {
    tdelete(made, &watches->tree, compare);
    return refuse_excess(it, made);
  }
  if (!principal_may_watch(it->connection)) {
    tdelete(made, &watches->tree, compare);
    free_watch(it, made);
    /* The call ends, so that its client retries and finds the identities that the daemon has by then. */
    call_refuse(it, REFUSED_TOO_MANY_WATCHES, RPC_RESOURCE_EXHAUSTED,
                "a user without an identity watches at most 4096 identities");
    return false;
  }
  watches->count++;
  watches->bytes += name.size;
  principal_count_watches(it->connection, 1);
  counter_add_owned(&it->connection->front->counters->watchers, 1);
  list_push(&watches->all, &made->link);
  look(it, made);
  return true;
}

static bool drop(call *it, wire_view name) {
  if (name.size > IDENTITY_NAME_MAX) return true; /* such a name cannot be watched */
  watch *wanted = new_watch(name);
  if (wanted == NULL) {
    call_finish(it, RPC_RESOURCE_EXHAUSTED, "out of memory");
    return false;
  }
  watches *watches = it->state;
  watch **found = tfind(wanted, &watches->tree, compare);
  if (found != NULL) remove_watch(it, *found);
  free_watch(it, wanted);
  settle(it);
  return true;
}

/* False when the call was ended. */
static bool take(call *it, const wire_watch_item *item) {
  budget_spend(it->connection, WORK_OPERATION);
  if (item->identity.size == 0) {
    call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "the name of an identity is empty");
    return false;
  }
  return item->unwatch ? drop(it, item->identity) : add(it, item->identity);
}

/* A message is processed at once, so its size is limited; the next message waits for the connection's turn. */
static void message(call *it, wire_view bytes) {
  budget_spend(it->connection, WORK_FRAME);
  wire_batch_reader reader = {.rest = bytes};
  wire_watch_item item;
  wire_status status;
  unsigned items = 0;
  while ((status = wire_next_watch_item(&reader, &item)) == WIRE_OK) {
    if (++items > WIRE_WATCH_ITEMS_MAX) {
      call_refuse(it, REFUSED_TOO_MANY_WATCHES, RPC_INVALID_ARGUMENT,
                  "more than 256 identities to watch and unwatch in one message");
      return;
    }
    if (!take(it, &item)) return;
  }
  if (status != WIRE_END) {
    call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "malformed WatchIdentitiesRequest");
    return;
  }
  it->credit += (uint32_t)(WIRE_GRPC_HEADER_SIZE + bytes.size);
  response_give_credit(it);
}

/* No more names will come, but changes are still sent, as with WatchIdentity. */
static void half_closed(call *it) {}

/* ---- responses ---- */

static size_t fill_body(call *it, uint8_t *to, size_t room) {
  watches *watches = it->state;
  size_t size = identity_sending_fill(&watches->sending, to, room);
  settle(it);
  return size;
}

static void describe(const watch *one, wire_identity_news *news) {
  const char *text = NULL;
  news->name = (wire_view){one->name, one->size};
  if (one->state == WATCH_TOLD) {
    news->identity =
        (wire_view){one->message->frame + WIRE_GRPC_HEADER_SIZE, one->message->size - WIRE_GRPC_HEADER_SIZE};
    return;
  }
  if (one->state == WATCH_EXCESS) {
    news->status = RPC_RESOURCE_EXHAUSTED;
    text = too_many;
  } else {
    news->status = RPC_NOT_FOUND;
    text = "no such identity, or this caller may not use it";
  }
  news->message = (wire_view){(const uint8_t *)text, strlen(text)};
}

/* Puts the start of a response into call->partial and its identity into watches->sending. False when memory ran out. */
static bool begin_response(call *it, watch *one) {
  wire_identity_news news = {0};
  describe(one, &news);
  wire_writer writer = {.size = WIRE_GRPC_HEADER_SIZE, .room = WIRE_GRPC_HEADER_SIZE + IDENTITY_NAME_MAX + 256};
  writer.data = malloc(writer.room);
  if (writer.data == NULL) return false;
  wire_append_identity_news(&writer, &news);
  message_write_header(writer.data, writer.size - WIRE_GRPC_HEADER_SIZE + news.identity.size);
  it->connection->owed++; /* until the partial message has been sent */
  it->partial = writer.data;
  it->partial_size = writer.size;
  it->partial_at = 0;
  watches *watches = it->state;
  identity_message *sent = one->message == NULL ? NULL : identity_message_retain(one->message);
  identity_sending_begin(&watches->sending, sent, WIRE_GRPC_HEADER_SIZE); /* its own header is for WatchIdentity */
  return true;
}

static size_t fill(call *it, uint8_t *to, size_t room) {
  watches *watches = it->state;
  if (!identity_sending_is_done(&watches->sending)) return fill_body(it, to, room);
  if (list_empty(&watches->news)) return 0;
  watch *one = LIST_ENTRY(watches->news.next, watch, news);
  if (!begin_response(it, one)) return 0; /* retried when there is more to send */
  list_remove(&one->news);
  if (one->state == WATCH_EXCESS) {
    watches->excess--;
    free_watch(it, one);
  }
  settle(it);
  return response_fill_partial(it, to, room);
}

const call_method method_watch_identities = {.path = "/offload.v1.PrivateKeyService/WatchIdentities",
                                             .streams = true,
                                             .drain = DRAIN_ENDS,
                                             .start = start,
                                             .message = message,
                                             .half_closed = half_closed,
                                             .keyring_changed = keyring_changed,
                                             .fill = fill,
                                             .finished = finished,
                                             .freed = freed};
