/* Listening sockets, and the bound on connections. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "internal.h"

enum { ACCEPTS_PER_TURN = 64 };

static void admit(front *front, const listener *from, int descriptor) {
  caller who;
  if (!caller_read(descriptor, from->name, &who)) {
    caller_free(&who);
    close(descriptor);
    return;
  }
  if (counter_read(&front->counters->connections) >= front->settings.max_connections) {
    refusals_add(front->refusals, REFUSED_TOO_MANY_CONNECTIONS, &who, NULL);
    caller_free(&who);
    close(descriptor);
    return;
  }
  connection_open(front, descriptor, &who);
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
    close(descriptor);
  }
  front->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
  return descriptor >= 0;
}

bool listener_accept(front *front, listener *from) {
  for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
    int descriptor = accept4(from->source.descriptor, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (descriptor >= 0) {
      admit(front, from, descriptor);
    } else if (errno == EMFILE || errno == ENFILE) {
      if (!drop_one(front, from)) return false;
    } else if (errno != ECONNABORTED && errno != EINTR) {
      return false; /* EAGAIN: all are in */
    }
  }
  return true;
}

void listener_close(front *front, listener *it) {
  list_remove(&it->link);
  front_unwatch(front, &it->source);
  free(it->name);
  free(it);
}
