/* Listening sockets, and the bounds on connections: of all, of one user, and of those that no identity is for. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../monotonic.h"
#include "internal.h"

/* In a turn of the loop: finding out who a caller is takes tens of microseconds, and somebody may connect all the time.
 */
#define ACCEPT_NS 50000u

static uint32_t connections_of(front *front, uid_t uid, const char *listener) {
  const principal *known = principal_find(front, uid, listener, false);
  const principal *stranger = principal_find(front, uid, listener, true);
  return (known == NULL ? 0 : known->connections) + (stranger == NULL ? 0 : stranger->connections);
}

static void turn_away(front *front, int descriptor, refusal_reason reason, const caller *who) {
  farewell_refuse(front, descriptor, reason, who);
  close(descriptor);
}

static void admit(front *front, const listener *from, int descriptor) {
  const front_settings *settings = &front->settings;
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    close(descriptor);
    return;
  }
  /* Before anything that costs more than turning it away. */
  caller name = {.pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid, .listener = from->name};
  if (counter_read(&front->counters->connections) >= settings->max_connections) {
    turn_away(front, descriptor, REFUSED_TOO_MANY_CONNECTIONS, &name);
    return;
  }
  if (connections_of(front, name.uid, from->name) >= settings->max_connections_per_user) {
    turn_away(front, descriptor, REFUSED_USER_CONNECTIONS, &name);
    return;
  }
  /* Not where an identity may be for others of the same user: they would be turned away for what this one does. */
  if (!arrivals_allow(front, from, name.uid) && !principal_may_be_known(front, name.uid, from->name)) {
    turn_away(front, descriptor, REFUSED_STRANGER_CONNECTIONS, &name);
    return;
  }
  caller who;
  if (!caller_read(descriptor, from->name, &who)) {
    caller_free(&who);
    close(descriptor);
    return;
  }
  bool is_stranger = !principal_is_known(front, &who);
  if (is_stranger) arrivals_note_stranger(front, from, name.uid);
  if (is_stranger && front->stranger_connections >= settings->max_connections_without_identity) {
    turn_away(front, descriptor, REFUSED_STRANGER_CONNECTIONS, &who);
    caller_free(&who);
    return;
  }
  connection_open(front, descriptor, &who, is_stranger);
}

/* Out of descriptors: a connection that stays in the queue would wake us for ever, so it is taken and dropped, with the
 * descriptor that was kept for this. */
static bool drop_one(front *front, const listener *from) {
  if (front->spare < 0) return false;
  close(front->spare);
  int descriptor = accept4(from->source.descriptor, NULL, NULL, SOCK_CLOEXEC);
  if (descriptor >= 0) {
    caller who;
    if (caller_read(descriptor, from->name, &who)) {
      refusals_add(front->refusals, REFUSED_TOO_MANY_CONNECTIONS, &who, NULL);
    }
    caller_free(&who);
    farewell_without_descriptors(descriptor);
    close(descriptor);
  }
  front->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
  return descriptor >= 0;
}

bool listener_accept(front *front, listener *from) {
  uint64_t until = monotonic_ns() + ACCEPT_NS;
  do {
    int descriptor = accept4(from->source.descriptor, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (descriptor >= 0) {
      admit(front, from, descriptor);
    } else if (errno == EMFILE || errno == ENFILE) {
      if (!drop_one(front, from)) return false;
    } else if (errno != ECONNABORTED && errno != EINTR) {
      return false; /* EAGAIN: all are in */
    }
  } while (monotonic_ns() < until);
  return true;
}

void listener_close(front *front, listener *it) {
  list_remove(&it->link);
  front_unwatch(front, &it->source);
  free(it->name);
  free(it);
}
