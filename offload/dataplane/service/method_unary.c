/* Sign and Decrypt: one request message, one operation, one response message. */
#include <stdlib.h>

#include "offload/dataplane/grpc/call.h"
#include "offload/dataplane/grpc/message.h"
#include "offload/dataplane/grpc/response.h"
#include "offload/dataplane/service/admission.h"
#include "offload/dataplane/service/private_key_service.h"
#include "offload/dataplane/service/result.h"

static void take(call *it, wire_view message, bool decrypt) {
  if (!list_empty(&it->operations) || !list_empty(&it->answers)) {
    call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "a unary call has one request message");
    return;
  }
  wire_operation request;
  wire_status status =
      decrypt ? wire_decode_decrypt_request(message, &request) : wire_decode_sign_request(message, &request);
  if (status == WIRE_MALFORMED) {
    call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "malformed request message");
    return;
  }
  /* The window is not given back: nothing more comes on this stream. */
  if (admission_take(it, &request, it->deadline.at, 0) == NULL) {
    call_finish(it, RPC_RESOURCE_EXHAUSTED, "no memory for more operations of this user");
  }
}

static void sign_message(call *it, wire_view message) {
  take(it, message, false);
}
static void decrypt_message(call *it, wire_view message) {
  take(it, message, true);
}

static void half_closed(call *it) {
  if (!it->has_message) call_refuse(it, REFUSED_MALFORMED, RPC_INVALID_ARGUMENT, "the request message is missing");
}

static void answered(call *it, operation *op) {
  if (op->status == RPC_OK) {
    call_complete(it);
  } else {
    call_finish(it, (rpc_status)op->status, op->message);
  }
}

/* The response always fits: nghttp2 offers at least this room unless the peer's windows are nearly closed; then the
 * response is sent from `partial`. */
static size_t fill(call *it, uint8_t *to, size_t room) {
  if (list_empty(&it->answers)) return 0;
  operation *op = LIST_ENTRY(it->answers.next, operation, of_call);
  bool fits = room >= WIRE_GRPC_HEADER_SIZE + RESULT_MAX;
  uint8_t *frame = fits ? to : malloc(WIRE_GRPC_HEADER_SIZE + RESULT_MAX);
  if (frame == NULL) return 0;
  wire_writer writer = {.data = frame + WIRE_GRPC_HEADER_SIZE, .room = RESULT_MAX};
  wire_result result = {.output = {op->sign.output, op->sign.output_size},
                        .backend = result_backend(it->connection->front->work, op),
                        .batch_size = op->batch_size};
  wire_append_sign_response(&writer, &result);
  message_write_header(frame, writer.size);
  call_release_operation(it, op);
  if (fits) return WIRE_GRPC_HEADER_SIZE + writer.size;
  it->partial = frame;
  it->connection->owed++;
  it->partial_size = WIRE_GRPC_HEADER_SIZE + writer.size;
  return response_fill_partial(it, to, room);
}

const call_method method_sign = {.path = "/offload.v1.PrivateKeyService/Sign",
                                 .message = sign_message,
                                 .half_closed = half_closed,
                                 .answered = answered,
                                 .fill = fill};

const call_method method_decrypt = {.path = "/offload.v1.PrivateKeyService/Decrypt",
                                    .message = decrypt_message,
                                    .half_closed = half_closed,
                                    .answered = answered,
                                    .fill = fill};
