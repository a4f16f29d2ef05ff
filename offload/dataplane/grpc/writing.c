/* Writing to one connection. turns.c decides when that is done, and for how long in a turn of the loop. */
#include "offload/dataplane/grpc/writing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "offload/dataplane/grpc/drain.h"
#include "offload/dataplane/grpc/principal.h"
#include "offload/dataplane/grpc/timeouts.h"
#include "offload/dataplane/grpc/turns.h"

enum {
  STRANGER_WRITE_SIZE = 16 * 1024,
  FLUSH_ROUNDS = 2, /* of WRITE_SIZE to one connection, before the next one's turn */
};

void writing_free_unsent(connection *it) {
  if (it->unsent == NULL) return;
  explicit_bzero(it->unsent, it->unsent_size); /* it may hold a plaintext */
  free(it->unsent);
  principal_repay(it, it->unsent_size);
  it->unsent = NULL;
  it->unsent_size = it->unsent_at = 0;
}

static void await_writable(connection *it, bool await) {
  if (it->awaits_writable == await) return;
  it->awaits_writable = await;
  struct epoll_event event = {.events = CONNECTION_EVENTS | (await ? EPOLLOUT : 0), .data.ptr = &it->source};
  epoll_ctl(it->front->epoll, EPOLL_CTL_MOD, it->source.descriptor, &event);
}

/* Sends as much as the socket takes; false when the connection is broken. */
static bool send_some(connection *it, const uint8_t *data, size_t size, size_t *sent) {
  *sent = 0;
  while (*sent < size) {
    ssize_t put = send(it->source.descriptor, data + *sent, size - *sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno == EAGAIN;
    *sent += (size_t)put;
  }
  return true;
}

/* Sends what was left over before. True when nothing is left. */
static bool send_unsent(connection *it, bool *progressed, bool *broken) {
  if (it->unsent == NULL) return true;
  size_t sent;
  *broken = !send_some(it, it->unsent + it->unsent_at, it->unsent_size - it->unsent_at, &sent);
  it->unsent_at += sent;
  *progressed |= sent > 0;
  if (*broken || it->unsent_at < it->unsent_size) return false;
  writing_free_unsent(it);
  return true;
}

/* Keeps what the socket did not take. It is charged even above what the user may hold, since frames cannot be returned
 * to nghttp2; it is at most WRITE_SIZE and a frame per connection, and nothing is read from the connection
 * meanwhile. */
static bool keep(connection *it, const uint8_t *data, size_t size) {
  it->unsent = malloc(size);
  if (it->unsent == NULL) return false;
  memcpy(it->unsent, data, size);
  it->unsent_size = size;
  it->unsent_at = 0;
  principal_owe(it, size);
  return true;
}

/* Fills the write buffer with frames. Returns the size, or -1. */
static ssize_t gather(connection *it) {
  uint8_t *to = it->front->write_buffer;
  size_t used = 0, most = it->principal->is_stranger ? STRANGER_WRITE_SIZE : WRITE_SIZE;
  while (used < most) {
    const uint8_t *frame;
    ssize_t size = nghttp2_session_mem_send(it->session, &frame);
    if (size < 0 || (size_t)size > FRAME_MAX) return -1;
    if (size == 0) break;
    memcpy(to + used, frame, (size_t)size);
    used += (size_t)size;
  }
  return (ssize_t)used;
}

/* False when the connection is broken. */
static bool send_all(connection *it, bool *progressed) {
  bool broken = false;
  for (unsigned round = 0; send_unsent(it, progressed, &broken); round++) {
    if (round == FLUSH_ROUNDS) { /* the user's other connections are served before it continues */
      connection_mark_dirty(it);
      return true;
    }
    ssize_t size = gather(it);
    if (size <= 0) return size == 0;
    size_t sent;
    if (!send_some(it, it->front->write_buffer, (size_t)size, &sent)) return false;
    *progressed |= sent > 0;
    if (sent < (size_t)size) return keep(it, it->front->write_buffer + sent, (size_t)size - sent);
  }
  return !broken;
}

void writing_flush(connection *it) {
  if (it->closed) return;
  bool progressed = false;
  bool broken = !send_all(it, &progressed);
  bool done = it->ending || !nghttp2_session_want_read(it->session);
  bool over = done && it->unsent == NULL && !nghttp2_session_want_write(it->session);
  if (broken || (over && !drain_lingers(it))) {
    connection_close(it);
    return;
  }
  await_writable(it, it->unsent != NULL);
  timeouts_note_sent(it, progressed);
  if (it->unsent == NULL && connection_has_input(it)) turns_add(it);
}
