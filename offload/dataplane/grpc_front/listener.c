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

/* What a client is told that cannot be served: a GOAWAY frame with the reason, in place of the SETTINGS that a server
 * begins with. So gRPC clients see a connection that failed and say UNAVAILABLE at once; after SETTINGS they would take
 * it for one that works, and try again until the deadline of the call. The Envoy module shows the reason. It is lost
 * where the socket does not take it at once, which an empty one does. */
static void say_why(int descriptor, const char *reason) {
  enum { FRAME_HEADER = 9, FIXED = 8, REASON_MAX = 200 };
  uint8_t frame[FRAME_HEADER + FIXED + REASON_MAX] = {0};
  size_t size = strlen(reason) < REASON_MAX ? strlen(reason) : REASON_MAX;
  frame[2] = (uint8_t)(FIXED + size);
  frame[3] = NGHTTP2_GOAWAY;
  frame[FRAME_HEADER + FIXED - 1] = NGHTTP2_ENHANCE_YOUR_CALM;
  memcpy(frame + FRAME_HEADER + FIXED, reason, size);
  ssize_t sent = send(descriptor, frame, FRAME_HEADER + FIXED + size, MSG_NOSIGNAL | MSG_DONTWAIT);
  (void)sent;
}

static void turn_away(front *front, int descriptor, refusal_reason reason, const caller *who) {
  const front_settings *settings = &front->settings;
  char text[200] = "";
  refusals_add(front->refusals, reason, who, NULL);
  switch (reason) {
    case REFUSED_USER_CONNECTIONS:
      snprintf(text, sizeof text,
               "this user has as many connections as one may have (data_plane.max_connections_per_user: %u)",
               settings->max_connections_per_user);
      break;
    case REFUSED_STRANGER_CONNECTIONS:
      snprintf(text, sizeof text,
               "callers without an identity have as many connections as they may have "
               "(data_plane.max_connections_without_identity: %u), or connect too often",
               settings->max_connections_without_identity);
      break;
    default:
      snprintf(text, sizeof text, "the daemon has as many connections as it may have (data_plane.max_connections: %u)",
               settings->max_connections);
  }
  say_why(descriptor, text);
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
  if (!arrivals_allow(front, from, name.uid)) {
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
    say_why(descriptor, "the daemon has no descriptors left for connections (LimitNOFILE= in its unit, ulimit -n)");
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
