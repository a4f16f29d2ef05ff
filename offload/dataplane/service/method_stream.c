/* Stream: batches of operations in, batches of results out, matched by id. All results that are ready when the socket
 * can take them are sent in one message.
 */
#include <stdlib.h>

#include "offload/dataplane/grpc/budget.h"
#include "offload/dataplane/grpc/call.h"
#include "offload/dataplane/grpc/message.h"
#include "offload/dataplane/grpc/response.h"
#include "offload/dataplane/service/admission.h"
#include "offload/dataplane/service/private_key_service.h"
#include "offload/dataplane/service/result.h"

/* ---- operations by id, for cancelling ---- */

enum { ID_BUCKETS = 256 };

/* call->state: chains of the operations that are not yet done. */
static operation **bucket_of(const call *it, uint64_t id) {
  uint64_t hash = id * it->connection->front->id_multiplier;
  operation **by_id = it->state;
  return &by_id[hash >> 32 & (ID_BUCKETS - 1)];
}

static void remember(call *it, operation *op) {
  operation **bucket = bucket_of(it, op->id);
  op->same_id = *bucket;
  *bucket = op;
}

static void forget(call *it, operation *op) {
  for (operation **link = bucket_of(it, op->id); *link != NULL; link = &(*link)->same_id) {
    if (*link != op) continue;
    *link = op->same_id;
    return;
  }
}

static operation *find(const call *it, uint64_t id) {
  operation *op = *bucket_of(it, id);
  while (op != NULL && op->id != id) op = op->same_id;
  return op;
}

/* Operations that a shard has already are answered as if they had not been cancelled. */
static void cancel(call *it, uint64_t id) {
  front *front = it->connection->front;
  operation *op = find(it, id);
  if (op == NULL) return;
  pthread_mutex_lock(&front->work->lock);
  bool taken_back = op->fresh || batcher_cancel(&front->work->batcher, &op->item);
  pthread_mutex_unlock(&front->work->lock);
  if (!taken_back) return;
  list_remove(&op->item.link);
  forget(it, op);
  counter_add_owned(&front->counters->classes[op->item.algorithm].operations[RPC_CANCELLED][0], 1);
  call_release_operation(it, op);
}

_Static_assert(WIRE_CANCELLED_MAX == 4096, "the text below says so");

/* Counts the ids of the whole message, which is processed at once; a field without an id is as much work as one with an
 * id. False when the call was refused. */
static bool cancel_all(call *it, wire_view packed, unsigned *cancelled) {
  uint64_t id = 0;
  wire_status status = WIRE_OK;
  if (packed.size == 0) ++*cancelled;
  while (*cancelled <= WIRE_CANCELLED_MAX && (status = wire_next_id(&packed, &id)) == WIRE_OK) {
    if (++*cancelled > WIRE_CANCELLED_MAX) break;
    budget_spend(it->connection, WORK_CANCEL);
    cancel(it, id);
  }
  if (*cancelled > WIRE_CANCELLED_MAX) {
    call_refuse(it, REFUSED_TOO_LARGE, RPC_INVALID_ARGUMENT, "more than 4096 cancelled operations in one message");
  } else if (status != WIRE_END) {
    call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "malformed message in the stream");
  }
  return !it->finished;
}

/* ---- messages ---- */

static void start(call *it) {
  size_t size = ID_BUCKETS * sizeof(operation *);
  if (call_charge(it, size)) it->state = calloc(1, size);
  if (it->state == NULL) {
    call_refuse(it, REFUSED_USER_MEMORY, RPC_RESOURCE_EXHAUSTED, "no memory for more calls of this user");
    return;
  }
  response_open(it);
}

static bool take_operation(call *it, const wire_operation *request, uint32_t window) {
  uint64_t now = it->connection->front->now;
  uint64_t deadline = request->timeout_us == 0 ? NEVER : now + 1000ull * request->timeout_us;
  operation *op = admission_take(it, request, deadline, window);
  if (op == NULL) {
    call_finish(it, RPC_RESOURCE_EXHAUSTED, "no memory for more operations of this user");
    return false;
  }
  if (op->fresh) remember(it, op);
  return true;
}

static void message(call *it, wire_view bytes) {
  wire_batch_reader reader = {.rest = bytes};
  wire_batch_item item;
  wire_status status;
  unsigned operations = 0, cancelled = 0;
  size_t held = 0;
  for (;;) {
    size_t before = reader.rest.size;
    status = wire_next_item(&reader, &item);
    if (status != WIRE_OK && status != WIRE_TOO_LARGE) break;
    if (item.kind == WIRE_ITEM_CANCELLED) {
      if (!cancel_all(it, item.cancelled, &cancelled)) return;
      continue;
    }
    if (++operations > WIRE_OPERATIONS_MAX) {
      call_refuse(it, REFUSED_TOO_LARGE, RPC_INVALID_ARGUMENT, "more than 256 operations in one message");
      return;
    }
    uint32_t window = (uint32_t)(before - reader.rest.size);
    if (!take_operation(it, &item.operation, window)) return;
    held += window;
  }
  if (status == WIRE_MALFORMED) {
    call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "malformed message in the stream");
    return;
  }
  if (operations == 0) budget_spend(it->connection, WORK_FRAME);
  it->credit += (uint32_t)(WIRE_GRPC_HEADER_SIZE + bytes.size - held);
  response_give_credit(it);
}

static void complete_if_done(call *it) {
  if (it->half_closed && it->buffer_size == 0 && list_empty(&it->operations)) call_complete(it);
}

static void half_closed(call *it) {
  complete_if_done(it);
}

static void answered(call *it, operation *op) {
  if (op->ring != NULL) forget(it, op);
  response_resume(it);
  complete_if_done(it);
}

/* ---- results ---- */

static uint32_t to_us(uint64_t ns) {
  return ns / 1000 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 1000);
}

static bool append(const call *it, wire_writer *writer, const operation *op) {
  wire_result result = {.id = op->id, .status = op->status};
  if (op->status == RPC_OK) {
    result.output = (wire_view){op->sign.output, op->sign.output_size};
    result.backend = result_backend(it->connection->front->work, op);
  } else {
    result.message = (wire_view){(const uint8_t *)op->message, __builtin_strlen(op->message)};
  }
  if (op->started != 0) {
    result.batch_size = op->batch_size;
    result.queue_us = op->started > op->item.arrived ? to_us(op->started - op->item.arrived) : 0;
    result.run_us = to_us(op->finished - op->started);
  }
  return wire_append_result(writer, &result);
}

static size_t fill_frame(call *it, uint8_t *to, size_t room) {
  wire_writer writer = {.data = to + WIRE_GRPC_HEADER_SIZE, .room = room - WIRE_GRPC_HEADER_SIZE};
  while (!list_empty(&it->answers)) {
    operation *op = LIST_ENTRY(it->answers.next, operation, of_call);
    if (!append(it, &writer, op)) break;
    call_release_operation(it, op);
  }
  if (writer.size == 0) return 0;
  message_write_header(to, writer.size);
  return WIRE_GRPC_HEADER_SIZE + writer.size;
}

static size_t fill(call *it, uint8_t *to, size_t room) {
  if (list_empty(&it->answers)) return 0;
  size_t size = room > WIRE_GRPC_HEADER_SIZE ? fill_frame(it, to, room) : 0;
  if (size > 0) return size;
  /* The peer's windows do not leave room for even one result. */
  uint8_t *frame = malloc(WIRE_GRPC_HEADER_SIZE + RESULT_MAX);
  if (frame == NULL) return 0;
  it->partial_size = fill_frame(it, frame, WIRE_GRPC_HEADER_SIZE + RESULT_MAX);
  it->partial = frame;
  it->connection->owed++;
  return response_fill_partial(it, to, room);
}

static void freed(call *it) {
  free(it->state);
}

const call_method method_stream = {.path = "/offload.v1.PrivateKeyService/Stream",
                                   .streams = true,
                                   .names_input_max = true,
                                   .drain = DRAIN_ENDS_QUIET,
                                   .start = start,
                                   .message = message,
                                   .half_closed = half_closed,
                                   .answered = answered,
                                   .fill = fill,
                                   .freed = freed};
