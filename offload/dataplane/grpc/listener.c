/* Listening sockets, and the bounds on connections: in total, per user, and for callers without an identity. */
#include "offload/dataplane/grpc/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "offload/dataplane/grpc/arrivals.h"
#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/farewell.h"
#include "offload/dataplane/grpc/principal.h"
#include "offload/dataplane/host/monotonic.h"

/* Identifying a caller takes tens of microseconds, and a client may connect and disconnect in a loop. In a turn of the
 * event loop, accepting takes ACCEPT_NS at most; then it rests, REST_OF_STRANGERS times as long as it spent on callers
 * without an identity, and as long as it spent on the others. So the front sleeps for most of the time under such an
 * attack: a thread that never sleeps has to wait for a processor behind every program that computes, and so does
 * everyone who depends on it. New connections meanwhile wait in the queue of the socket, behind 1,024 others at most
 * (listeners.py). Because of that wait, strangers have a quarter of the time here, not a tenth as for their requests
 * (turns.c).
 *
 * Time is measured as CPU time of the thread: what the host does meanwhile is charged to no caller.
 */
#define ACCEPT_NS 200000u
#define CANNOT_ACCEPT_NS 10000000u /* pause before the next attempt */
enum { REST_OF_STRANGERS = 3 };

static uint32_t connections_of(front *front, uid_t uid, const char *listener) {
  const principal *known = principal_find(front, uid, listener, false);
  const principal *stranger = principal_find(front, uid, listener, true);
  return (known == NULL ? 0 : known->connections) + (stranger == NULL ? 0 : stranger->connections);
}

static void turn_away(front *front, int descriptor, refusal_reason reason, const caller *who) {
  farewell_refuse(front, descriptor, reason, who);
  close(descriptor);
}

/* Whether the caller has, or may have, an identity. */
static bool admit(front *front, const listener *from, int descriptor) {
  const front_settings *settings = &front->settings;
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    close(descriptor);
    return false;
  }
  /* Checked before anything that costs more than a rejection. */
  caller name = {.pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid, .listener = from->name};
  if (counter_read(&front->counters->connections) >= settings->max_connections) {
    turn_away(front, descriptor, REFUSED_TOO_MANY_CONNECTIONS, &name);
    return false;
  }
  if (connections_of(front, name.uid, from->name) >= settings->max_connections_per_user) {
    turn_away(front, descriptor, REFUSED_USER_CONNECTIONS, &name);
    return false;
  }
  /* Not checked when other processes of the same user may have an identity: they would be rejected for what this one
   * does. */
  if (!arrivals_allow(front, from, name.uid) && !principal_may_be_known(front, name.uid, from->name)) {
    refusals_add(front->refusals, REFUSED_STRANGER_CONNECTIONS, &name, NULL); /* it was told often enough */
    close(descriptor);
    return false;
  }
  caller who;
  if (!caller_read(descriptor, from->name, &who)) {
    caller_free(&who);
    close(descriptor);
    return false;
  }
  bool is_stranger = !principal_is_known(front, &who);
  if (is_stranger) arrivals_note_stranger(front, from, name.uid);
  if (is_stranger && front->stranger_connections >= settings->max_connections_without_identity) {
    turn_away(front, descriptor, REFUSED_STRANGER_CONNECTIONS, &who);
    caller_free(&who);
    return false;
  }
  connection_open(front, descriptor, &who, is_stranger);
  return !is_stranger;
}

typedef enum outcome { ALL_ARE_IN, IS_STRANGER, IS_KNOWN, CANNOT_ACCEPT } outcome;

static outcome without_connection(int error) {
  if (error == EAGAIN) return ALL_ARE_IN;
  return error == ECONNABORTED || error == EINTR ? IS_STRANGER : CANNOT_ACCEPT;
}

/* Out of descriptors: the spare descriptor is given up to accept one connection and reject it, so that its client is
 * told why at once, instead of waiting until others close. */
static outcome drop_one(front *front, const listener *from) {
  if (front->spare < 0 && !loop_take_spare(front)) return CANNOT_ACCEPT;
  close(front->spare);
  int descriptor = accept4(from->source.descriptor, NULL, NULL, SOCK_CLOEXEC);
  outcome found = descriptor < 0 ? without_connection(errno) : IS_STRANGER;
  if (descriptor >= 0) {
    caller who;
    if (caller_read(descriptor, from->name, &who)) {
      refusals_add(front->refusals, REFUSED_TOO_MANY_CONNECTIONS, &who, NULL);
    }
    caller_free(&who);
    farewell_without_descriptors(descriptor);
    close(descriptor);
  }
  loop_take_spare(front); /* another thread may have taken the descriptor: retried when it is needed */
  return found;
}

static outcome accept_one(front *front, listener *from) {
  int descriptor = accept4(from->source.descriptor, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (descriptor >= 0) return admit(front, from, descriptor) ? IS_KNOWN : IS_STRANGER;
  return errno == EMFILE || errno == ENFILE ? drop_one(front, from) : without_connection(errno);
}

/* Accepts until the queue is empty or the time is over; in the latter case the listener goes to the end of the line. It
 * is reported once (edge-triggered), so it also stays in line when memory or descriptors are exhausted. Returns the
 * nanoseconds of `time` that it used. */
static uint64_t accept_from(front *front, listener *from, uint64_t time) {
  uint64_t spent = 0, began = thread_ns();
  outcome found = IS_STRANGER;
  while (found != ALL_ARE_IN && found != CANNOT_ACCEPT && spent < time) {
    found = accept_one(front, from);
    uint64_t before = spent;
    spent = thread_ns() - began;
    front->accept_rests_until += (spent - before) * (found == IS_KNOWN ? 1 : REST_OF_STRANGERS);
  }
  if (found != ALL_ARE_IN) list_push(&front->arriving, &from->arriving);
  if (found != CANNOT_ACCEPT) return spent;
  front->accept_rests_until += CANNOT_ACCEPT_NS;
  return time;
}

void listeners_serve(front *front) {
  if (list_empty(&front->arriving) || front->now < front->accept_rests_until) return;
  front->accept_rests_until = front->now;
  uint64_t spent = 0;
  do {
    listener *next = LIST_ENTRY(list_pop(&front->arriving), listener, arriving);
    spent += accept_from(front, next, ACCEPT_NS - spent);
  } while (!list_empty(&front->arriving) && spent < ACCEPT_NS);
  front->accept_rests_until += spent;
}

bool listener_accept_last(front *front, listener *from) {
  list_remove(&from->arriving);
  accept_from(front, from, ACCEPT_NS);
  return !list_empty(&from->arriving);
}

void listener_reported(front *front, listener *it) {
  if (list_empty(&it->arriving)) list_push(&front->arriving, &it->arriving);
}

uint64_t listeners_next(const front *front) {
  return list_empty(&front->arriving) ? NEVER : front->accept_rests_until;
}

void listener_close(front *front, listener *it) {
  list_remove(&it->link);
  list_remove(&it->arriving);
  loop_unwatch(front, &it->source);
  free(it->name);
  free(it);
}
