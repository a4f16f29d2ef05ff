/* Connections: how they begin and end, and what each does in its turn. Writing is in writing.c. */
#include "offload/dataplane/grpc/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "offload/dataplane/grpc/budget.h"
#include "offload/dataplane/grpc/call.h"
#include "offload/dataplane/grpc/drain.h"
#include "offload/dataplane/grpc/farewell.h"
#include "offload/dataplane/grpc/message.h"
#include "offload/dataplane/grpc/session.h"
#include "offload/dataplane/grpc/timeouts.h"
#include "offload/dataplane/grpc/turns.h"
#include "offload/dataplane/grpc/writing.h"

/* The memory of a connection without calls: its HTTP/2 session with both header tables, and the caller's
 * credentials. */
enum { CONNECTION_MEMORY = 16 * 1024 };

/* ---- begin and end ---- */

static void init_lists(connection *it) {
  list_node *lists[] = {&it->link,    &it->dirty,    &it->ready, &it->idle,  &it->stalled,
                        &it->leaving, &it->standing, &it->calls, &it->paused};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) list_init(lists[i]);
}

void connection_open(front *front, int descriptor, caller *caller, bool is_stranger) {
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
  batch_source_init(&it->batch, NULL);
  list_push(&front->connections, &it->link);
  counter_add_owned(&front->counters->connections, 1);
  counter_add_owned(&front->counters->connections_total, 1);
  if (!principal_join(it, is_stranger) || !principal_charge(it, CONNECTION_MEMORY)) {
    farewell_refuse(front, descriptor, REFUSED_USER_MEMORY, &it->caller);
    connection_close(it);
    return;
  }
  if (!session_open(it) || !loop_watch(front, &it->source, CONNECTION_EVENTS)) {
    connection_close(it);
    return;
  }
  timeouts_note_idle(it);
  connection_mark_dirty(it);
  if (front->drain != DRAIN_NOT) drain_connection(it);
}

void connection_mark_dirty(connection *it) {
  turns_add_writing(it);
}

void connection_close(connection *it) {
  if (it->closed) return;
  it->closed = true;
  loop_unwatch(it->front, &it->source);
  turns_remove(it);
  list_node *lists[] = {&it->idle, &it->stalled, &it->leaving, &it->standing, &it->link};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) list_remove(lists[i]);
  list_push(&it->front->ended, &it->link); /* freed when nothing refers to it: connection_free */
  counter_add_owned(&it->front->counters->connections, (uint64_t)-1);
  /* nghttp2_session_del does not report the streams it forgets. */
  for (list_node *node = it->calls.next, *next; node != &it->calls; node = next) {
    next = node->next;
    call *open = LIST_ENTRY(node, call, link);
    if (!open->closed) call_closed(open);
  }
}

static void free_unread(connection *it) {
  free(it->unread);
  if (it->unread != NULL) principal_repay(it, it->unread_size);
  it->unread = NULL;
  it->unread_size = 0;
}

void connection_free(connection *it) {
  list_remove(&it->link);
  nghttp2_session_del(it->session);
  free(it->verdicts);
  free_unread(it);
  writing_free_unsent(it);
  principal_leave(it);
  caller_free(&it->caller);
  free(it);
}

/* ---- reading ---- */

void connection_reported(connection *it, uint32_t events) {
  if (events & EPOLLOUT) connection_mark_dirty(it);
  if (!(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))) return;
  it->readable = true;
  if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) it->hung_up = true;
  /* The peer will not read what is unsent: the attempt to write fails, which closes the connection in its user's
   * share. */
  if ((events & EPOLLHUP) && it->unsent != NULL) connection_mark_dirty(it);
  turns_add(it);
}

/* Whether more input may be read from the peer in this turn. A peer that does not read its answers is not read from,
 * because each request adds another answer. */
static bool may_take(const connection *it) {
  return it->unsent == NULL && !budget_is_spent(it);
}

/* The same for its next turn, which begins with a new work budget: so the budget of this one does not count. */
static bool may_take_again(const connection *it) {
  return it->unsent == NULL && nghttp2_session_get_outbound_queue_size(it->session) < OUTBOUND_MAX;
}

bool connection_has_input(const connection *it) {
  return it->unread != NULL || it->paused_at || it->readable || it->resumable;
}

/* Resumes paused calls, as far as answers have been sent and the work budget allows. */
static void resume_calls(connection *it) {
  it->resumable = false;
  list_node calls;
  list_init(&calls);
  list_splice(&calls, &it->paused);
  while (!list_empty(&calls)) message_resume(LIST_ENTRY(calls.next, call, paused));
  connection_mark_dirty(it); /* windows may have opened again, even without an answer */
}

static bool keep_unread(connection *it, const uint8_t *data, size_t size) {
  uint8_t *kept = malloc(size);
  if (kept == NULL || !principal_charge(it, size)) {
    free(kept);
    return false;
  }
  memcpy(kept, data, size);
  free_unread(it);
  it->unread = kept;
  it->unread_size = size;
  return true;
}

/* Passes input to nghttp2 and keeps what it did not take. False when the connection was closed. */
static bool feed(connection *it, const uint8_t *data, size_t size) {
  front *front = it->front;
  if (it->ending) {
    free_unread(it);
    return true;
  }
  it->paused_at = false;
  ssize_t used = nghttp2_session_mem_recv(it->session, data, size);
  connection_mark_dirty(it);
  if (it->ending) { /* nothing more is looked at */
    free_unread(it);
    return true;
  }
  if (used < 0) {
    refusals_add(front->refusals, REFUSED_MALFORMED, &it->caller, NULL);
    writing_flush(it); /* sends the GOAWAY with the reason, if nghttp2 has one */
    connection_close(it);
    return false;
  }
  if ((size_t)used == size) {
    free_unread(it);
    return true;
  }
  if (keep_unread(it, data + used, size - (size_t)used)) return true;
  free_unread(it);
  farewell_end(it, REFUSED_USER_MEMORY);
  return true;
}

static bool read_some(connection *it) {
  size_t room = it->principal->is_stranger ? STRANGER_READ_SIZE : READ_SIZE;
  ssize_t got = read(it->source.descriptor, it->front->read_buffer, room);
  if (got < 0 && errno == EINTR) return true;
  if (got < 0 && errno == EAGAIN) {
    it->readable = false;
    return true;
  }
  if (got <= 0) {
    connection_close(it);
    return false;
  }
  if ((size_t)got < room && !it->hung_up) it->readable = false; /* epoll reports what comes later */
  return feed(it, it->front->read_buffer, (size_t)got);
}

bool connection_serve(connection *it) {
  static const uint8_t nothing[1];
  it->work = 0;
  if (it->closed || !may_take(it)) return false; /* continues when that has been sent: writing_flush */
  if (it->resumable) resume_calls(it);
  if (it->resumable) return true;
  if (budget_is_spent(it)) return connection_has_input(it) && may_take_again(it);
  bool open = it->unread != NULL ? feed(it, it->unread, it->unread_size)
              : it->paused_at    ? feed(it, nothing, 0)
              : it->readable     ? read_some(it)
                                 : true;
  return open && connection_has_input(it) && may_take_again(it);
}
