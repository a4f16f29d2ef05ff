/* The HTTP/2 session of a connection: the callbacks of nghttp2. */
#include "offload/dataplane/grpc/session.h"

#include <stdio.h>
#include <string.h>

#include "offload/dataplane/grpc/budget.h"
#include "offload/dataplane/grpc/call.h"
#include "offload/dataplane/grpc/drain.h"
#include "offload/dataplane/grpc/farewell.h"
#include "offload/dataplane/grpc/flood.h"
#include "offload/dataplane/grpc/header_values.h"
#include "offload/dataplane/grpc/message.h"
#include "offload/dataplane/grpc/response.h"

enum {
  STREAM_WINDOW = 640 * 1024, /* request bytes of one call that may be unanswered; a whole message fits */
  CONNECTION_WINDOW = 1024 * 1024,
  HEADERS_FLOOD = 4 * HEADERS_MAX, /* a peer that sends more is not making a request */
  STRANGER_STREAMS = 32,           /* calls that a caller without an identity may have open on a connection */
};

_Static_assert((int)STREAM_WINDOW > (int)WIRE_REQUEST_MAX + WIRE_GRPC_HEADER_SIZE,
               "a whole message fits into the window");

static call *call_of(nghttp2_session *session, int32_t stream) {
  return nghttp2_session_get_stream_user_data(session, stream);
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *head, void *user_data) {
  const connection *connection = user_data;
  if (connection->ending) return NGHTTP2_ERR_CALLBACK_FAILURE; /* its input is ignored */
  budget_spend(user_data, WORK_FRAME);
  return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) {
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0; /* trailers */
  connection *connection = user_data;
  int32_t stream = frame->hd.stream_id;
  budget_spend(connection, WORK_CALL);
  call *made = call_new(connection, stream);
  if (made != NULL) return nghttp2_session_set_stream_user_data(session, stream, made);
  /* gRPC clients report this as RESOURCE_EXHAUSTED, and it costs less than a response. */
  refusals_add(connection->front->refusals, REFUSED_USER_MEMORY, &connection->caller, NULL);
  return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_ENHANCE_YOUR_CALM);
}

static bool is(const uint8_t *text, size_t size, const char *expected) {
  return size == strlen(expected) && memcmp(text, expected, size) == 0;
}

/* Counts a field, even if it is rejected later. False when there are far too many: the connection is ended. */
static bool count_header(connection *connection, call *it, size_t size) {
  budget_spend(connection, WORK_HEADER + (uint32_t)size);
  if (it == NULL) return true;
  it->header_size += size;
  if (it->header_size <= HEADERS_FLOOD) return true;
  farewell_end(connection, REFUSED_FLOOD);
  return false;
}

static void read_request_header(call *it, const uint8_t *name, size_t name_size, const uint8_t *value, size_t size) {
  if (is(name, name_size, ":path")) {
    it->method = it->connection->front->service->find(value, size);
  } else if (is(name, name_size, ":method")) {
    it->is_post = is(value, size, "POST");
  } else if (is(name, name_size, "content-type")) {
    it->is_grpc = header_is_grpc_content(value, size);
  } else if (is(name, name_size, "grpc-timeout")) {
    it->timeout = header_timeout_ns(value, size);
    it->bad_timeout = it->timeout == NEVER;
  } else if (is(name, name_size, "grpc-encoding")) {
    it->names_encoding = !is(value, size, "identity");
  }
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                     const uint8_t *value, size_t size, uint8_t flags, void *user_data) {
  connection *connection = user_data;
  call *it = call_of(session, frame->hd.stream_id);
  if (!count_header(connection, it, name_size + size)) return NGHTTP2_ERR_CALLBACK_FAILURE;
  if (it != NULL && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    read_request_header(it, name, name_size, value, size);
  }
  if (!budget_is_spent(connection)) return 0;
  connection->paused_at = true;
  return NGHTTP2_ERR_PAUSE;
}

/* Called for fields that HTTP does not allow: nghttp2 drops them, after the same work. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                             size_t name_size, const uint8_t *value, size_t size, uint8_t flags, void *user_data) {
  call *it = call_of(session, frame->hd.stream_id);
  return count_header(user_data, it, name_size + size) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* Whether the frame is as cheap to send as a ping. */
static bool carries_nothing(const nghttp2_frame *frame) {
  return frame->hd.type == NGHTTP2_DATA && frame->hd.length <= frame->data.padlen;
}

static void end_of_headers_or_data(connection *connection, call *it, const nghttp2_frame *frame) {
  bool trailers = frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat != NGHTTP2_HCAT_REQUEST;
  if (frame->hd.type == NGHTTP2_HEADERS && !trailers) call_begin(it);
  if (trailers && it->header_size > HEADERS_MAX) {
    call_refuse(it, REFUSED_TOO_LARGE, RPC_RESOURCE_EXHAUSTED, "trailers are larger than 16 KiB");
  }
  if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
    call_half_close(it);
  } else if (carries_nothing(frame)) {
    flood_control_frame(connection, 1);
  }
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) {
  connection *connection = user_data;
  call *it;
  switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
      it = call_of(session, frame->hd.stream_id);
      if (it != NULL) {
        end_of_headers_or_data(connection, it, frame);
      } else if (carries_nothing(frame)) {
        flood_control_frame(connection, 1);
      }
      return 0;
    case NGHTTP2_PING:
      if (frame->hd.flags & NGHTTP2_FLAG_ACK) {
        drain_acknowledged(connection);
        return 0;
      }
      break;
    case NGHTTP2_SETTINGS: /* a new window is applied to all streams */
      if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) flood_control_frame(connection, 1 + connection->call_count / 8);
      return 0;
    case NGHTTP2_PRIORITY: break;
    default: return 0;
  }
  flood_control_frame(connection, 1);
  return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t size,
                   void *user_data) {
  call *it = call_of(session, stream);
  /* Memory is bounded per call by the stream's window, which opens when answers have been sent, and per connection by
   * CONNECTION_BUFFER_MAX; the connection's window would only let calls block one another. */
  if (nghttp2_session_consume_connection(session, size) != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
  if (it == NULL || it->finished || it->method == NULL) {
    return nghttp2_session_consume_stream(session, stream, size) == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  message_receive(it, data, size);
  return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) {
  call *it;
  if (frame->hd.type == NGHTTP2_DATA) {
    it = call_of(session, frame->hd.stream_id);
    if (it != NULL) response_give_credit(it);
  } else if (frame->hd.type == NGHTTP2_HEADERS && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
    /* The status was sent before the client had finished: tell it to stop, without an error. */
    it = call_of(session, frame->hd.stream_id);
    if (it != NULL && !it->half_closed) {
      nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, it->stream, NGHTTP2_NO_ERROR);
    }
  }
  return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *user_data) {
  call *it = call_of(session, stream);
  if (it != NULL) call_closed(it);
  return 0;
}

bool session_setup(front *front, char error[KERNEL_ERROR_MAX]) {
  if (nghttp2_session_callbacks_new(&front->callbacks) != 0 || nghttp2_option_new(&front->options) != 0) {
    snprintf(error, KERNEL_ERROR_MAX, "out of memory");
    return false;
  }
  nghttp2_session_callbacks *callbacks = front->callbacks;
  nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);

  nghttp2_option_set_no_auto_window_update(front->options, 1);
  nghttp2_option_set_no_closed_streams(front->options, 1); /* 10,000 idle connections should be cheap */
  /* The default (1000, then 33 a second) sends GOAWAY to a client whose own callers cancel often. A reset costs us
   * little: the operation is removed from the queue, and the stream limit bounds how many there are. */
  nghttp2_option_set_stream_reset_rate_limit(front->options, 20000, 5000);
  return true;
}

uint32_t session_streams(const connection *it) {
  uint32_t most = it->front->settings.max_streams;
  return it->principal->is_stranger && most > STRANGER_STREAMS ? STRANGER_STREAMS : most;
}

bool session_open(connection *it) {
  front *front = it->front;
  if (nghttp2_session_server_new2(&it->session, front->callbacks, it, front->options) != 0) return false;
  nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, session_streams(it)},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADERS_MAX},
      {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}, /* avoids the tree of priorities */
  };
  return nghttp2_submit_settings(it->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings) == 0 &&
         nghttp2_session_set_local_window_size(it->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) == 0;
}
