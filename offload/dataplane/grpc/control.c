/* Requests of other threads to the front; each runs on the front's thread. */
#include "offload/dataplane/grpc/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "offload/dataplane/grpc/call.h"
#include "offload/dataplane/grpc/drain.h"
#include "offload/dataplane/grpc/listener.h"
#include "offload/dataplane/grpc/loop.h"
#include "offload/dataplane/grpc/principal.h"
#include "offload/dataplane/host/monotonic.h"

typedef struct listener_request {
  const char *name;
  listener *made;
  char *error;
  bool done;
} listener_request;

static listener *find_listener(front *it, const char *name) {
  for (list_node *node = it->listeners.next; node != &it->listeners; node = node->next) {
    listener *found = LIST_ENTRY(node, listener, link);
    if (strcmp(found->name, name) == 0) return found;
  }
  return NULL;
}

static void add_listener(front *it, void *argument) {
  listener_request *request = argument;
  if (it->drain != DRAIN_NOT) {
    snprintf(request->error, KERNEL_ERROR_MAX, "listener '%s': the data plane is draining", request->name);
  } else if (find_listener(it, request->name) != NULL) {
    snprintf(request->error, KERNEL_ERROR_MAX, "listener '%s' already exists", request->name);
  } else if (!loop_watch(it, &request->made->source, EPOLLIN | EPOLLET)) {
    snprintf(request->error, KERNEL_ERROR_MAX, "listener '%s': %s", request->name, strerror(errno));
  } else {
    list_push(&it->listeners, &request->made->link);
    request->done = true;
  }
}

static bool is_listening_unix_socket(int descriptor) {
  int domain = 0, type = 0, listening = 0;
  socklen_t size = sizeof(int);
  return getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
         getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM &&
         getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
}

bool front_add_listener(front *it, const char *name, int descriptor, char error[KERNEL_ERROR_MAX]) {
  if (!is_listening_unix_socket(descriptor)) {
    snprintf(error, KERNEL_ERROR_MAX, "listener '%s': descriptor %d is not a listening Unix stream socket", name,
             descriptor);
    return false;
  }
  listener *made = calloc(1, sizeof *made);
  int duplicate = made == NULL ? -1 : fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
  char *copy = duplicate < 0 ? NULL : strdup(name);
  if (copy == NULL || fcntl(duplicate, F_SETFL, O_NONBLOCK) != 0) {
    snprintf(error, KERNEL_ERROR_MAX, "listener '%s': %s", name, strerror(errno));
    if (duplicate >= 0) close(duplicate);
    free(copy);
    free(made);
    return false;
  }
  made->source = (event_source){.kind = SOURCE_LISTENER, .descriptor = duplicate};
  made->name = copy;
  list_init(&made->link);
  list_init(&made->arriving);
  listener_request request = {.name = name, .made = made, .error = error};
  loop_run_command(it, add_listener, &request);
  if (!request.done) listener_close(it, made);
  return request.done;
}

static void remove_listener(front *it, void *argument) {
  listener_request *request = argument;
  listener *found = find_listener(it, request->name);
  if (found == NULL) return;
  listener_close(it, found);
  request->done = true;
}

bool front_remove_listener(front *it, const char *name) {
  listener_request request = {.name = name};
  loop_run_command(it, remove_listener, &request);
  return request.done;
}

static void set_keyring(front *it, void *argument) {
  keyring *ring = argument;
  keyring *replaced = it->ring;
  ring->generation = ++it->generation;
  it->ring = ring;
  keyring_release(replaced); /* lives on while accepted operations hold it */
  calls_keyring_changed(it);
  principals_review_all(it);
}

void front_set_keyring(front *it, keyring *ring) {
  loop_run_command(it, set_keyring, ring);
}

typedef struct key_uses_request {
  bool count;
  key_use *taken;
  unsigned used;
  uint64_t unlisted;
  bool done;
} key_uses_request;

static void count_key_uses(front *it, void *argument) {
  key_uses_request *request = argument;
  if (!request->count) {
    free(it->uses);
    it->uses = NULL;
  } else if (it->uses == NULL) {
    it->uses = calloc(1, sizeof *it->uses);
  }
  request->done = (it->uses != NULL) == request->count;
}

bool front_count_key_uses(front *it, bool count) {
  key_uses_request request = {.count = count};
  loop_run_command(it, count_key_uses, &request);
  return request.done;
}

static void take_key_uses(front *it, void *argument) {
  key_uses_request *request = argument;
  if (it->uses != NULL) request->used = key_uses_take(it->uses, request->taken, &request->unlisted);
}

unsigned front_take_key_uses(front *it, key_use taken[], uint64_t *unlisted) {
  key_uses_request request = {.taken = taken};
  loop_run_command(it, take_key_uses, &request);
  *unlisted = request.unlisted;
  return request.used;
}

static void drain(front *it, void *argument) {
  drain_begin(it);
}

void front_drain(front *it) {
  loop_run_command(it, drain, NULL);
}

bool front_is_draining(const front *it) {
  return atomic_load_explicit((atomic_bool *)&it->draining, memory_order_relaxed);
}

bool front_wait_drained(front *it, uint64_t timeout_ns) {
  uint64_t until = monotonic_ns() + timeout_ns;
  struct timespec end = {.tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u)};
  pthread_mutex_lock(&it->lock);
  int failure = 0;
  while (!it->drained && failure == 0) failure = pthread_cond_timedwait(&it->changed, &it->lock, &end);
  bool drained = it->drained;
  pthread_mutex_unlock(&it->lock);
  return drained;
}
