/* The front's thread, its event loop, and the commands that other threads give it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "offload/dataplane/grpc/internal.h"
#include "offload/dataplane/host/monotonic.h"

/* An event costs about 100 ns and is reported once (edge-triggered), so many of them are taken at once: a caller's
 * first byte does not wait behind those of others for several turns. */
enum { EVENTS_PER_TURN = 1024, DEADLINES_PER_TURN = 256, DRAIN_TICK_MS = 10 };

/* ---- waking ---- */

/* From any thread. A system call only when the front sleeps: it looks for work again after it has set `sleeping`. */
void front_wake(void *argument) {
  front *it = argument;
  if (!atomic_exchange(&it->sleeping, false)) return;
  uint64_t one = 1;
  /* The counter cannot overflow, and an eventfd has no other way to fail. */
  if (write(it->wake.descriptor, &one, sizeof one) != sizeof one) abort();
}

bool front_watch(front *it, event_source *source, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = source};
  return epoll_ctl(it->epoll, EPOLL_CTL_ADD, source->descriptor, &event) == 0;
}

void front_unwatch(front *it, event_source *source) {
  if (source->descriptor < 0) return;
  epoll_ctl(it->epoll, EPOLL_CTL_DEL, source->descriptor, NULL);
  close(source->descriptor);
  source->descriptor = -1;
}

bool front_take_spare(front *it) {
  it->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
  return it->spare >= 0;
}

uint32_t front_wire_backend(const front *it, unsigned backend) {
  const kernel_backend *used = it->work->backends[backend];
  return used == &kernel_software ? WIRE_BACKEND_SOFTWARE
         : used == &kernel_ifma8  ? WIRE_BACKEND_IFMA8
                                  : WIRE_BACKEND_UNSPECIFIED;
}

/* ---- commands ---- */

static void run_commands(front *it) {
  pthread_mutex_lock(&it->lock);
  command *first = it->first_command;
  it->first_command = NULL;
  it->last_command = &it->first_command;
  pthread_mutex_unlock(&it->lock);
  if (first == NULL) return;
  for (command *next; first != NULL; first = next) {
    next = first->next;
    first->run(it, first->argument);
    pthread_mutex_lock(&it->lock);
    first->done = true; /* the waiting thread owns it again */
    pthread_cond_broadcast(&it->changed);
    pthread_mutex_unlock(&it->lock);
  }
}

void front_run_command(front *it, void (*run)(front *front, void *argument), void *argument) {
  if (!it->started) {
    it->now = monotonic_ns();
    run(it, argument);
    return;
  }
  command given = {.run = run, .argument = argument};
  pthread_mutex_lock(&it->lock);
  *it->last_command = &given;
  it->last_command = &given.next;
  pthread_mutex_unlock(&it->lock);
  front_wake(it);
  pthread_mutex_lock(&it->lock);
  while (!given.done) pthread_cond_wait(&it->changed, &it->lock);
  pthread_mutex_unlock(&it->lock);
}

/* ---- one turn ---- */

void front_take_completions(front *it) {
  operation *next;
  for (operation *op = completions_take(&it->work->done); op != NULL; op = next) {
    next = op->next;
    admission_done(it, op);
  }
}

static void handle(front *it, event_source *source, uint32_t events) {
  if (source->kind == SOURCE_LISTENER) {
    listener_reported(it, (listener *)source);
  } else if (source->kind == SOURCE_CONNECTION) {
    connection *connection = (struct connection *)source;
    if (connection->closed) return; /* by something earlier in this turn */
    connection_reported(connection, events);
  } /* the wake-up is edge-triggered: nothing to read */
}

static void pass_deadlines(front *it) {
  deadline *due;
  for (unsigned i = 0; i < DEADLINES_PER_TURN && (due = deadlines_take_due(&it->deadlines, it->now)) != NULL; i++) {
    call_deadline_passed(LIST_ENTRY(due, call, deadline));
  }
}

static void free_ended(front *it) {
  for (list_node *node = it->ended.next, *next; node != &it->ended; node = next) {
    next = node->next;
    connection *ended = LIST_ENTRY(node, connection, link);
    if (ended->call_count == 0) connection_free(ended);
  }
  if (it->drain == DRAIN_NOT || !list_empty(&it->connections) || it->drained) return;
  pthread_mutex_lock(&it->lock);
  it->drained = true;
  pthread_cond_broadcast(&it->changed);
  pthread_mutex_unlock(&it->lock);
}

/* How long epoll may wait. Sets `sleeping` when it may wait at all, and looks once more whether there is work. */
static int prepare_wait(front *it) {
  if (turns_next(it) == 0 || !list_empty(&it->unreviewed)) return 0;
  int timeout = it->drain != DRAIN_NOT ? DRAIN_TICK_MS : -1;
  uint64_t next = deadlines_next(&it->deadlines), others[] = {timeouts_next(it), turns_next(it), listeners_next(it)};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    if (others[i] < next) next = others[i];
  }
  if (next != NEVER) {
    uint64_t wait = next <= it->now ? 0 : (next - it->now + 999999) / 1000000;
    if (timeout < 0 || wait < (uint64_t)timeout) timeout = wait > 60000 ? 60000 : (int)wait;
  }
  atomic_store(&it->sleeping, true);
  pthread_mutex_lock(&it->lock);
  bool commanded = it->first_command != NULL;
  pthread_mutex_unlock(&it->lock);
  if (!commanded && !completions_waiting(&it->work->done)) return timeout;
  atomic_store(&it->sleeping, false);
  return 0;
}

void front_loop_turn(front *it, int timeout_ms) {
  struct epoll_event *events = it->events;
  int count = epoll_wait(it->epoll, events, EVENTS_PER_TURN, timeout_ms);
  atomic_store(&it->sleeping, false);
  it->now = monotonic_ns();
  for (int i = 0; i < count; i++) handle(it, events[i].data.ptr, events[i].events);
  listeners_serve(it);
  turns_serve(it);
  run_commands(it);
  principals_review_some(it);
  front_take_completions(it);
  pass_deadlines(it);
  drain_turn(it);
  timeouts_pass(it);
  if (!list_empty(&it->submitted)) admission_submit_all(it);
  turns_write(it);
  free_ended(it);
}

static void *front_main(void *argument) {
  front *it = argument;
  /* From the thread itself: to name another one, /proc/self/task would have to be writable, and with it our code. */
  pthread_setname_np(pthread_self(), "offload-front");
  while (!it->stopping) front_loop_turn(it, prepare_wait(it));
  return NULL;
}

/* ---- life ---- */

static bool open_descriptors(front *it, char error[KERNEL_ERROR_MAX]) {
  it->epoll = epoll_create1(EPOLL_CLOEXEC);
  it->wake = (event_source){.kind = SOURCE_WAKE, .descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  front_take_spare(it);
  if (it->epoll >= 0 && it->wake.descriptor >= 0 && front_watch(it, &it->wake, EPOLLIN | EPOLLET)) return true;
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

front *front_new(const front_settings *settings, work_queue *work, counters *counters, refusal_log *refusals,
                 char error[KERNEL_ERROR_MAX]) {
  front *it = calloc(1, sizeof *it);
  if (it == NULL) {
    snprintf(error, KERNEL_ERROR_MAX, "out of memory");
    return NULL;
  }
  init_fields(it);
  it->settings = *settings;
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
  work->wake_front = front_wake;
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
  int failure = locked_stack_start(&it->stack, &it->thread, front_main, it);
  if (failure != 0) {
    snprintf(error, KERNEL_ERROR_MAX, "cannot start the front's thread: %s", strerror(failure));
    return false;
  }
  it->started = true;
  return true;
}

void front_stop(front *it) {
  front_run_command(it, stop_command, NULL);
  if (it->started) pthread_join(it->thread, NULL);
  it->started = false;
  locked_stack_free(&it->stack);
}

void front_free(front *it) {
  close_everything(it);
  front_take_completions(it);
  if (!it->drained) free_ended(it);
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
