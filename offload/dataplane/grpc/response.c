/* Responses: headers, messages from the method, trailers; or trailers alone when there is only a status.
 *
 * nghttp2 asks for data (read_data) when the peer's windows have room; a call that has nothing to send is deferred and
 * resumed later.
 */
#include "offload/dataplane/grpc/response.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/header_values.h"

#define HEADER(text, content)                                                      \
  {(uint8_t *)(text), (uint8_t *)(content), sizeof(text) - 1, sizeof(content) - 1, \
   NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE}

enum { TRAILERS_MAX = 3, MESSAGE_MAX = 512 };

typedef struct trailers {
  char status[4];
  char message[MESSAGE_MAX];
} trailers;

/* Writes the status as header fields; returns how many. `room` must live until they are submitted: nghttp2 then copies
 * them. */
static size_t write_trailers(const call *it, trailers *room, nghttp2_nv fields[TRAILERS_MAX]) {
  size_t count = 0;
  int size = snprintf(room->status, sizeof room->status, "%d", (int)it->status);
  fields[count++] =
      (nghttp2_nv){(uint8_t *)"grpc-status", (uint8_t *)room->status, 11, (size_t)size, NGHTTP2_NV_FLAG_NO_COPY_NAME};
  if (it->status_message != NULL) {
    size_t length = header_percent_encode(it->status_message, room->message, sizeof room->message);
    fields[count++] =
        (nghttp2_nv){(uint8_t *)"grpc-message", (uint8_t *)room->message, 12, length, NGHTTP2_NV_FLAG_NO_COPY_NAME};
  }
  if (it->status == RPC_UNIMPLEMENTED) {
    fields[count++] = (nghttp2_nv)HEADER("grpc-accept-encoding", "identity");
  }
  return count;
}

/* ---- data ---- */

/* Copies the rest of a message that did not fit before. */
size_t response_fill_partial(call *it, uint8_t *to, size_t room) {
  size_t size = it->partial_size - it->partial_at;
  if (size > room) size = room;
  memcpy(to, it->partial + it->partial_at, size);
  it->partial_at += size;
  if (it->partial_at == it->partial_size) response_free_partial(it);
  return size;
}

void response_free_partial(call *it) {
  if (it->partial == NULL) return;
  explicit_bzero(it->partial, it->partial_size); /* it may hold a plaintext */
  free(it->partial);
  it->connection->owed--;
  it->partial = NULL;
  it->partial_size = it->partial_at = 0;
}

static size_t fill(call *it, uint8_t *to, size_t room) {
  size_t used = it->partial != NULL ? response_fill_partial(it, to, room) : 0;
  while (it->partial == NULL && used < room) {
    size_t more = it->method->fill(it, to + used, room - used);
    if (more == 0) break;
    used += more;
  }
  return used;
}

static ssize_t read_data(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user_data) {
  call *it = source->ptr;
  size_t used = fill(it, to, room);
  if (used == room) return (ssize_t)used; /* there may be more */
  if (it->finished && it->partial == NULL) {
    trailers space;
    nghttp2_nv fields[TRAILERS_MAX];
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    if (nghttp2_submit_trailer(session, stream, fields, write_trailers(it, &space, fields)) != 0) {
      return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* out of memory: the stream is reset */
    }
    return (ssize_t)used;
  }
  if (used > 0) return (ssize_t)used;
  it->deferred = true;
  return NGHTTP2_ERR_DEFERRED;
}

/* ---- headers ---- */

static const nghttp2_nv status_ok = HEADER(":status", "200");
static const nghttp2_nv content_type = HEADER("content-type", "application/grpc");
/* For the Envoy module: daemons without this header accept inputs of 16 KiB, and end a Stream that sends a larger
 * one. */
static const nghttp2_nv input_max = HEADER("offload-input-max", "524288");
_Static_assert(WIRE_INPUT_MAX == 524288, "the header says so");

/* Submitting fails only when memory runs out: the stream is then reset, which frees what it holds. */
static void submitted(call *it, int failure) {
  if (failure != 0) {
    nghttp2_submit_rst_stream(it->connection->session, NGHTTP2_FLAG_NONE, it->stream, NGHTTP2_INTERNAL_ERROR);
  }
  connection_mark_dirty(it->connection);
}

void response_open(call *it) {
  nghttp2_nv fields[] = {status_ok, content_type, input_max};
  size_t count = it->method->names_input_max ? 3 : 2;
  nghttp2_data_provider provider = {.source.ptr = it, .read_callback = read_data};
  it->responded = true;
  submitted(it, nghttp2_submit_response(it->connection->session, it->stream, fields, count, &provider));
}

void response_resume(call *it) {
  connection_mark_dirty(it->connection);
  if (!it->deferred) return;
  it->deferred = false;
  nghttp2_session_resume_data(it->connection->session, it->stream);
}

void response_give_credit(call *it) {
  if (it->credit == 0 || it->closed) return;
  nghttp2_session_consume_stream(it->connection->session, it->stream, it->credit);
  it->credit = 0;
}

void response_trailers_only(call *it) {
  trailers space;
  nghttp2_nv fields[2 + TRAILERS_MAX] = {status_ok, content_type};
  size_t count = 2 + write_trailers(it, &space, fields + 2);
  it->responded = true;
  submitted(it, nghttp2_submit_response(it->connection->session, it->stream, fields, count, NULL));
}

void response_http_status(call *it, const char *status) {
  refusals_add(it->connection->front->refusals, REFUSED_MALFORMED, &it->connection->caller, NULL);
  nghttp2_nv field = {(uint8_t *)":status", (uint8_t *)status, 7, 3, NGHTTP2_NV_FLAG_NONE};
  it->finished = it->responded = true;
  submitted(it, nghttp2_submit_response(it->connection->session, it->stream, &field, 1, NULL));
}
