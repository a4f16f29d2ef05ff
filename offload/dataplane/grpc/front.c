/* The lifecycle of the front: opening its descriptors, starting its thread, and ending both. */
#include "offload/dataplane/grpc/front.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "offload/dataplane/grpc/call.h"
#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/listener.h"
#include "offload/dataplane/grpc/loop.h"
#include "offload/dataplane/grpc/session.h"
#include "offload/dataplane/grpc/writing.h"
#include "offload/dataplane/host/monotonic.h"

static bool open_descriptors(front *it, char error[KERNEL_ERROR_MAX]) {
  it->epoll = epoll_create1(EPOLL_CLOEXEC);
  it->wake = (event_source){.kind = SOURCE_WAKE, .descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  loop_take_spare(it);
  if (it->epoll >= 0 && it->wake.descriptor >= 0 && loop_watch(it, &it->wake, EPOLLIN | EPOLLET)) return true;
  snprintf(error, KERNEL_ERROR_MAX, "cannot set up the event loop: %s", strerror(errno));
  return false;
}

static void init_fields(front *it) {
  list_node *lists[] = {&it->submitted, &it->listeners,        &it->connections, &it->ended,
                        &it->watchers,  &it->principals,       &it->turns,       &it->stranger_turns,
                        &it->writers,   &it->stranger_writers, &it->idle,        &it->stalled,
                        &it->leaving,   &it->reviewed,         &it->unreviewed,  &it->arriving};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) list_init(lists[i]);
  it->epoll = it->wake.descriptor = it->spare = -1;
  it->last_command = &it->first_command;
  it->now = monotonic_ns();
  operation_pool_init(&it->operations);
  pthread_mutex_init(&it->lock, NULL);
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&it->changed, &monotonic);
  pthread_condattr_destroy(&monotonic);
}

front *front_new(const front_settings *settings, const front_service *service, work_queue *work, counters *counters,
                 refusal_log *refusals, char error[KERNEL_ERROR_MAX]) {
  front *it = calloc(1, sizeof *it);
  if (it == NULL) {
    snprintf(error, KERNEL_ERROR_MAX, "out of memory");
    return NULL;
  }
  init_fields(it);
  it->settings = *settings;
  it->service = service;
  it->work = work;
  it->counters = counters;
  it->refusals = refusals;
  it->read_buffer = malloc(READ_SIZE);
  it->write_buffer = malloc(WRITE_SIZE + FRAME_MAX);
  it->events = malloc(EVENTS_PER_TURN * sizeof *it->events);
  it->ring = keyring_new();
  const char *duplicate;
  bool complete = it->read_buffer && it->write_buffer && it->events && it->ring && keyring_seal(it->ring, &duplicate) &&
                  deadlines_init(&it->deadlines, 64) &&
                  getrandom(&it->id_multiplier, sizeof it->id_multiplier, 0) == sizeof it->id_multiplier;
  if (!complete) snprintf(error, KERNEL_ERROR_MAX, "out of memory");
  if (!complete || !session_setup(it, error) || !open_descriptors(it, error)) {
    front_free(it);
    return NULL;
  }
  it->id_multiplier |= 1;
  work->wake_front = loop_wake;
  work->front = it;
  return it;
}

static void close_everything(front *it) {
  while (!list_empty(&it->listeners)) listener_close(it, LIST_ENTRY(it->listeners.next, listener, link));
  while (!list_empty(&it->connections)) connection_close(LIST_ENTRY(it->connections.next, connection, link));
}

static void stop_command(front *it, void *argument) {
  close_everything(it);
  it->stopping = true;
}

bool front_start(front *it, char error[KERNEL_ERROR_MAX]) {
  it->workspace = kernel_workspace_new();
  if (it->workspace == NULL) {
    snprintf(error, KERNEL_ERROR_MAX, "no locked memory for the workspace of the front (RLIMIT_MEMLOCK)");
    return false;
  }
  int failure = locked_stack_start(&it->stack, &it->thread, loop_main, it);
  if (failure != 0) {
    snprintf(error, KERNEL_ERROR_MAX, "cannot start the front's thread: %s", strerror(failure));
    return false;
  }
  it->started = true;
  return true;
}

void front_stop(front *it) {
  loop_run_command(it, stop_command, NULL);
  if (it->started) pthread_join(it->thread, NULL);
  it->started = false;
  locked_stack_free(&it->stack);
}

void front_free(front *it) {
  close_everything(it);
  loop_take_completions(it);
  if (!it->drained) loop_free_ended(it);
  while (it->free_calls != NULL) {
    call *next = it->free_calls->next_free;
    free(it->free_calls);
    it->free_calls = next;
  }
  operation_pool_free(&it->operations);
  keyring_release(it->ring);
  free(it->uses);
  deadlines_free(&it->deadlines);
  nghttp2_session_callbacks_del(it->callbacks);
  nghttp2_option_del(it->options);
  if (it->epoll >= 0) close(it->epoll);
  if (it->wake.descriptor >= 0) close(it->wake.descriptor);
  if (it->spare >= 0) close(it->spare);
  kernel_workspace_free(it->workspace);
  free(it->read_buffer);
  free(it->write_buffer);
  free(it->events);
  pthread_cond_destroy(&it->changed);
  pthread_mutex_destroy(&it->lock);
  free(it);
}
