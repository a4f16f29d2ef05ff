/* Listening sockets, and the bounds on connections: of all, of one user, and of those that no identity is for. */
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

/* Finding out who a caller is takes tens of microseconds, and somebody may connect and leave all the time. In a turn
 * of the loop, accepting takes ACCEPT_NS at most; then it rests, REST_OF_STRANGERS times as long as what went to
 * callers without an identity, and as long as what went to the others. So the front sleeps for most of the time under
 * such an attack: a thread that never sleeps has to wait for a processor behind every program that computes, with
 * everybody who depends on it. Whoever comes meanwhile waits in the queue of the socket, behind 1,024 others at most
 * (listeners.py). That is why strangers have a quarter of the time here, not a tenth as for what they send (turns.c).
 *
 * The time is the thread's own: what the host does meanwhile is nobody's debt.
 */
#define ACCEPT_NS 200000u
#define CANNOT_ACCEPT_NS 10000000u /* until it is tried again */
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

/* Whether it is, or may be, a caller that an identity is for. */
static bool admit(front *front, const listener *from, int descriptor) {
  const front_settings *settings = &front->settings;
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    close(descriptor);
    return false;
  }
  /* Before anything that costs more than turning it away. */
  caller name = {.pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid, .listener = from->name};
  if (counter_read(&front->counters->connections) >= settings->max_connections) {
    turn_away(front, descriptor, REFUSED_TOO_MANY_CONNECTIONS, &name);
    return false;
  }
  if (connections_of(front, name.uid, from->name) >= settings->max_connections_per_user) {
    turn_away(front, descriptor, REFUSED_USER_CONNECTIONS, &name);
    return false;
  }
  /* Not where an identity may be for others of the same user: they would be turned away for what this one does. */
  if (!arrivals_allow(front, from, name.uid) && !principal_may_be_known(front, name.uid, from->name)) {
    refusals_add(front->refusals, REFUSED_STRANGER_CONNECTIONS, &name, NULL); /* it has been told often enough */
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

/* Out of descriptors: a connection is taken and dropped with the descriptor that was kept for this, so that it hears
 * why, and does not wait for as long as the others last. */
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
  loop_take_spare(front); /* another thread may have been faster: it is tried again when it is needed */
  return found;
}

static outcome accept_one(front *front, listener *from) {
  int descriptor = accept4(from->source.descriptor, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (descriptor >= 0) return admit(front, from, descriptor) ? IS_KNOWN : IS_STRANGER;
  return errno == EMFILE || errno == ENFILE ? drop_one(front, from) : without_connection(errno);
}

/* Until all are in or the time is over; then there may be more, and the listener is at the end of the line. It is
 * reported once (edge-triggered), so it stays there also when nobody can be accepted for want of memory or descriptors.
 * Returns the nanoseconds that it took of `time`. */
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
