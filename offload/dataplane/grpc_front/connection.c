/* Connections: reading, and writing once per turn. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "internal.h"

/* ---- begin and end ---- */

static void init_lists(connection *it) {
  list_node *lists[] = {&it->link, &it->dirty, &it->resumable, &it->calls, &it->paused};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) list_init(lists[i]);
}

void connection_open(front *front, int descriptor, caller *caller) {
  connection *it = calloc(1, sizeof *it);
  if (it == NULL) {
    caller_free(caller);
    close(descriptor);
    return;
  }
  it->source = (event_source){.kind = SOURCE_CONNECTION, .descriptor = descriptor};
  it->front = front;
  it->caller = *caller;
  it->control_credited_at = 0; /* the first frame earns the whole burst */
  init_lists(it);
  batch_source_init(&it->batch);
  list_push(&front->connections, &it->link);
  counter_add_owned(&front->counters->connections, 1);
  counter_add_owned(&front->counters->connections_total, 1);
  if (!session_open(it) || !front_watch(front, &it->source, EPOLLIN | EPOLLRDHUP)) {
    connection_close(it);
    return;
  }
  connection_mark_dirty(it);
  if (front->drain != DRAIN_NOT) drain_connection(it);
}

void connection_mark_dirty(connection *it) {
  if (list_empty(&it->dirty) && !it->closed) list_push(&it->front->dirty, &it->dirty);
}

void connection_close(connection *it) {
  if (it->closed) return;
  it->closed = true;
  front_unwatch(it->front, &it->source);
  list_remove(&it->dirty);
  list_remove(&it->resumable);
  list_remove(&it->link);
  list_push(&it->front->ended, &it->link); /* freed when nothing refers to it: connection_free */
  counter_add_owned(&it->front->counters->connections, (uint64_t)-1);
  /* nghttp2_session_del does not report the streams it forgets. */
  for (list_node *node = it->calls.next, *next; node != &it->calls; node = next) {
    next = node->next;
    call *open = LIST_ENTRY(node, call, link);
    if (!open->closed) call_closed(open);
  }
}

static void free_unsent(connection *it) {
  if (it->unsent != NULL) explicit_bzero(it->unsent, it->unsent_size); /* a plaintext, perhaps */
  free(it->unsent);
  it->unsent = NULL;
}

void connection_free(connection *it) {
  list_remove(&it->link);
  nghttp2_session_del(it->session);
  caller_free(&it->caller);
  free(it->verdicts);
  free_unsent(it);
  free(it);
}

/* ---- reading ---- */

void connection_readable(connection *it) {
  front *front = it->front;
  ssize_t got = read(it->source.descriptor, front->read_buffer, READ_SIZE);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    connection_close(it);
    return;
  }
  /* What is left is reported again by epoll, after the others had their turn. */
  ssize_t used = nghttp2_session_mem_recv(it->session, front->read_buffer, (size_t)got);
  if (used < 0) {
    refusals_add(front->refusals, REFUSED_MALFORMED, &it->caller, NULL);
    connection_flush(it); /* says why, as far as nghttp2 has something to say */
    connection_close(it);
    return;
  }
  connection_mark_dirty(it);
}

/* ---- writing ---- */

static void await_writable(connection *it, bool await) {
  if (it->awaits_writable == await) return;
  it->awaits_writable = await;
  struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (await ? EPOLLOUT : 0), .data.ptr = &it->source};
  epoll_ctl(it->front->epoll, EPOLL_CTL_MOD, it->source.descriptor, &event);
}

/* Sends what it can; false when the connection is broken. */
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

/* True when nothing is left over from before. */
static bool send_unsent(connection *it, bool *broken) {
  if (it->unsent == NULL) return true;
  size_t sent;
  *broken = !send_some(it, it->unsent + it->unsent_at, it->unsent_size - it->unsent_at, &sent);
  it->unsent_at += sent;
  if (*broken || it->unsent_at < it->unsent_size) return false;
  free_unsent(it);
  return true;
}

/* Sends a buffer, keeping what the socket does not take. */
static bool send_or_keep(connection *it, const uint8_t *data, size_t size) {
  size_t sent;
  if (!send_some(it, data, size, &sent)) return false;
  if (sent == size) return true;
  it->unsent = malloc(size - sent);
  if (it->unsent == NULL) return false;
  memcpy(it->unsent, data + sent, size - sent);
  it->unsent_size = size - sent;
  it->unsent_at = 0;
  return true;
}

/* Fills the write buffer with frames; the rest waits for the next round. Returns the size, or -1. */
static ssize_t gather(connection *it, const uint8_t **carried, size_t *carried_size) {
  uint8_t *to = it->front->write_buffer;
  size_t used = 0;
  if (*carried != NULL) {
    memcpy(to, *carried, *carried_size);
    used = *carried_size;
    *carried = NULL;
  }
  for (;;) {
    const uint8_t *frame;
    ssize_t size = nghttp2_session_mem_send(it->session, &frame);
    if (size < 0) return -1;
    if (size == 0) return (ssize_t)used;
    if (used + (size_t)size > WRITE_SIZE) { /* stays valid until the next call */
      *carried = frame;
      *carried_size = (size_t)size;
      return (ssize_t)used;
    }
    memcpy(to + used, frame, (size_t)size);
    used += (size_t)size;
  }
}

void connection_flush(connection *it) {
  bool broken = false;
  list_remove(&it->dirty);
  if (it->closed) return;
  const uint8_t *carried = NULL;
  size_t carried_size = 0;
  while (send_unsent(it, &broken)) {
    ssize_t size = gather(it, &carried, &carried_size);
    if (size == 0) break;
    if (size < 0 || !send_or_keep(it, it->front->write_buffer, (size_t)size)) {
      broken = true;
      break;
    }
    if (it->unsent != NULL && carried != NULL) {
      /* The frame in hand cannot be given back: it joins what is left over. At most one frame. */
      uint8_t *grown = realloc(it->unsent, it->unsent_size + carried_size);
      broken = grown == NULL;
      if (broken) break;
      memcpy(grown + it->unsent_size, carried, carried_size);
      it->unsent = grown;
      it->unsent_size += carried_size;
      carried = NULL;
    }
  }
  bool over = it->unsent == NULL && !nghttp2_session_want_read(it->session) && !nghttp2_session_want_write(it->session);
  if (broken || (over && !drain_lingers(it))) {
    connection_close(it);
    return;
  }
  await_writable(it, it->unsent != NULL);
}
