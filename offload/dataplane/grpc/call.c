/* The lifecycle of a call:
 *
 *   call_new (headers begin) -> call_begin (headers complete: checked, method starts) -> messages, half-close
 *     -> call_finish (status known) -> call_closed (nghttp2 forgets the stream) -> freed when no operation refers to it
 *
 * Operations that a shard is running cannot be cancelled, so a closed call lives on until they return; see
 * call_release_operation.
 */
#include "offload/dataplane/grpc/call.h"

#include <stdlib.h>
#include <string.h>

#include "offload/dataplane/grpc/message.h"
#include "offload/dataplane/grpc/principal.h"
#include "offload/dataplane/grpc/response.h"
#include "offload/dataplane/grpc/timeouts.h"
#include "offload/dataplane/grpc/turns.h"

/* The memory of a call: this structure, and what nghttp2 keeps for a stream and its response headers. */
enum { CALL_MEMORY = sizeof(call) + 1024 };

bool call_charge(call *it, size_t bytes) {
  if (!principal_charge(it->connection, bytes)) return false;
  it->memory += bytes;
  return true;
}

call *call_new(connection *connection, int32_t stream) {
  front *front = connection->front;
  if (!principal_charge(connection, CALL_MEMORY)) return NULL;
  call *it = front->free_calls;
  if (it != NULL) {
    front->free_calls = it->next_free;
  } else if ((it = malloc(sizeof *it)) == NULL) {
    principal_repay(connection, CALL_MEMORY);
    return NULL;
  }
  *it = (call){
      .connection = connection, .stream = stream, .timeout = NEVER, .busy_at = front->now, .memory = CALL_MEMORY};
  list_remove(&connection->idle);
  list_node *lists[] = {&it->link, &it->paused, &it->watching, &it->operations, &it->answers};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) list_init(lists[i]);
  list_push(&connection->calls, &it->link);
  connection->call_count++;
  counter_add_owned(&front->counters->streams, 1);
  return it;
}

static void free_call(call *it) {
  connection *connection = it->connection;
  front *front = connection->front;
  list_remove(&it->link);
  if (it->method != NULL && it->method->freed != NULL) it->method->freed(it);
  principal_repay(connection, it->memory);
  if (--connection->call_count == 0) timeouts_note_idle(connection);
  counter_add_owned(&front->counters->streams, (uint64_t)-1);
  it->next_free = front->free_calls;
  front->free_calls = it;
}

/* ---- the start ---- */

static bool refuse_headers(call *it) {
  if (it->header_size > HEADERS_MAX) {
    call_refuse(it, REFUSED_TOO_LARGE, RPC_RESOURCE_EXHAUSTED, "request headers are larger than 16 KiB");
  } else if (!it->is_post) {
    response_http_status(it, "405");
  } else if (!it->is_grpc) {
    response_http_status(it, "415");
  } else if (it->method == NULL) {
    call_refuse(it, REFUSED_UNKNOWN_METHOD, RPC_UNIMPLEMENTED, "unknown method; this is offload.v1.PrivateKeyService");
  } else if (it->bad_timeout) {
    call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT,
                "grpc-timeout is not a number of 1 to 8 digits and a unit");
  } else {
    return false;
  }
  return true;
}

void call_begin(call *it) {
  /* A drain may have finished it while its block of headers was incomplete. */
  if (it->finished || refuse_headers(it)) return;
  front *front = it->connection->front;
  if (it->timeout < NEVER - front->now) {
    it->deadline.at = front->now + it->timeout;
    if (!deadlines_add(&front->deadlines, &it->deadline)) {
      call_finish(it, RPC_RESOURCE_EXHAUSTED, "out of memory");
      return;
    }
  } else {
    it->deadline.at = NEVER;
  }
  if (it->method->start != NULL) it->method->start(it);
}

void call_half_close(call *it) {
  it->half_closed = true;
  if (it->finished || it->method == NULL) return;
  if (!list_empty(&it->paused)) return; /* message_resume calls this again */
  if (message_is_cut_short(it)) {
    call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "the last message is truncated");
  } else {
    it->method->half_closed(it);
  }
}

/* ---- operations ---- */

void call_answer(operation *op) {
  call *it = op->call;
  op->answered = true;
  it->connection->owed++;
  list_push(&it->answers, &op->of_call);
  it->method->answered(it, op);
}

void call_release_operation(call *it, operation *op) {
  connection *connection = it->connection;
  front *front = connection->front;
  list_remove(&op->of_call);
  it->credit += op->window;
  it->held--;
  connection->held--;
  if (op->answered) connection->owed--;
  principal_repay(connection, op->memory);
  operation_release(&front->operations, op);
  /* A closed connection may still list other calls as paused: they are the next to be closed. */
  if (!connection->closed && !list_empty(&connection->paused)) {
    connection->resumable = true;
    turns_add(connection);
  }
  if (it->closed && it->held == 0) free_call(it);
}

/* Cancels every operation that no shard has. Those that are running find the call finished when they complete. */
static void drop_operations(call *it) {
  front *front = it->connection->front;
  while (!list_empty(&it->answers)) {
    call_release_operation(it, LIST_ENTRY(it->answers.next, operation, of_call));
  }
  if (list_empty(&it->operations)) return;
  list_node dropped;
  list_init(&dropped);
  pthread_mutex_lock(&front->work->lock);
  for (list_node *node = it->operations.next, *next; node != &it->operations; node = next) {
    next = node->next;
    operation *op = LIST_ENTRY(node, operation, of_call);
    if (!op->fresh && !batcher_cancel(&front->work->batcher, &op->item)) continue; /* a shard has it */
    list_remove(&op->item.link);
    list_remove(&op->of_call);
    list_push(&dropped, &op->of_call);
  }
  pthread_mutex_unlock(&front->work->lock);
  while (!list_empty(&dropped)) {
    operation *op = LIST_ENTRY(dropped.next, operation, of_call);
    counter_add_owned(&front->counters->classes[op->item.algorithm].operations[RPC_CANCELLED][0], 1);
    call_release_operation(it, op);
  }
}

/* ---- the end ---- */

void call_finish(call *it, rpc_status status, const char *message) {
  if (it->finished) return;
  it->finished = true;
  it->status = status;
  it->status_message = message;
  deadlines_remove(&it->connection->front->deadlines, &it->deadline);
  list_remove(&it->paused);
  list_remove(&it->watching);
  if (it->method != NULL && it->method->finished != NULL) it->method->finished(it);
  drop_operations(it);
  if (it->closed) return;
  if (it->responded) {
    response_resume(it);
  } else {
    response_trailers_only(it);
  }
}

void call_complete(call *it) {
  it->finished = true;
  it->status = RPC_OK;
  it->status_message = NULL;
  deadlines_remove(&it->connection->front->deadlines, &it->deadline);
  if (it->responded) {
    response_resume(it);
  } else {
    response_open(it);
  }
}

void call_refuse(call *it, refusal_reason reason, rpc_status status, const char *message) {
  if (it->finished) return;
  refused_request asked = {0};
  if (it->method != NULL && it->method->describe != NULL) it->method->describe(it, &asked);
  refusals_add(it->connection->front->refusals, reason, &it->connection->caller, &asked);
  call_finish(it, status, message);
}

void call_deadline_passed(call *it) {
  call_refuse(it, REFUSED_DEADLINE, RPC_DEADLINE_EXCEEDED, "the deadline of the call has passed");
}

void call_closed(call *it) {
  it->held++; /* keeps it alive during what follows */
  it->closed = true;
  call_finish(it, RPC_CANCELLED, NULL);
  drop_operations(it); /* answers of a call that was finished but not sent */
  message_free_buffer(it);
  response_free_partial(it);
  if (--it->held == 0) free_call(it);
}

/* ---- watchers of the keyring ---- */

void calls_keyring_changed(front *front) {
  for (list_node *node = front->watchers.next, *next; node != &front->watchers; node = next) {
    next = node->next; /* a call that is refused leaves the list */
    call *watcher = LIST_ENTRY(node, call, watching);
    watcher->method->keyring_changed(watcher);
  }
}
