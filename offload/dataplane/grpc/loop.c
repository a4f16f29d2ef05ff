/* The front's thread, its event loop, and the commands that other threads give it. */
#include "offload/dataplane/grpc/loop.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/dataplane/grpc/call.h"
#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/listener.h"
#include "offload/dataplane/grpc/principal.h"
#include "offload/dataplane/grpc/timeouts.h"
#include "offload/dataplane/grpc/turns.h"
#include "offload/dataplane/host/monotonic.h"

enum { DEADLINES_PER_TURN = 256, DRAIN_TICK_MS = 10 };

/* ---- waking ---- */

/* May be called by any thread. It makes a system call only when the front sleeps: the front looks for work again after
 * it has set `sleeping`. */
void loop_wake(void *argument) {
  front *it = argument;
  if (!atomic_exchange(&it->sleeping, false)) return;
  uint64_t one = 1;
  /* The counter cannot overflow, and an eventfd has no other way to fail. */
  if (write(it->wake.descriptor, &one, sizeof one) != sizeof one) abort();
}

bool loop_watch(front *it, event_source *source, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = source};
  return epoll_ctl(it->epoll, EPOLL_CTL_ADD, source->descriptor, &event) == 0;
}

void loop_unwatch(front *it, event_source *source) {
  if (source->descriptor < 0) return;
  epoll_ctl(it->epoll, EPOLL_CTL_DEL, source->descriptor, NULL);
  close(source->descriptor);
  source->descriptor = -1;
}

bool loop_take_spare(front *it) {
  it->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
  return it->spare >= 0;
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

void loop_run_command(front *it, void (*run)(front *front, void *argument), void *argument) {
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
  loop_wake(it);
  pthread_mutex_lock(&it->lock);
  while (!given.done) pthread_cond_wait(&it->changed, &it->lock);
  pthread_mutex_unlock(&it->lock);
}

/* ---- one turn ---- */

void loop_take_completions(front *it) {
  operation *next;
  for (operation *op = completions_take(&it->work->done); op != NULL; op = next) {
    next = op->next;
    it->service->done(it, op);
  }
}

static void handle(front *it, event_source *source, uint32_t events) {
  if (source->kind == SOURCE_LISTENER) {
    listener_reported(it, (listener *)source);
  } else if (source->kind == SOURCE_CONNECTION) {
    connection *connection = (struct connection *)source;
    if (connection->closed) return; /* earlier in this turn */
    connection_reported(connection, events);
  } /* the wake-up is edge-triggered: nothing to read */
}

static void pass_deadlines(front *it) {
  deadline *due;
  for (unsigned i = 0; i < DEADLINES_PER_TURN && (due = deadlines_take_due(&it->deadlines, it->now)) != NULL; i++) {
    call_deadline_passed(LIST_ENTRY(due, call, deadline));
  }
}

void loop_free_ended(front *it) {
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

/* Returns how long epoll may wait. Sets `sleeping` when it may wait at all, and then checks once more whether there is
 * work. */
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

void loop_turn(front *it, int timeout_ms) {
  struct epoll_event *events = it->events;
  int count = epoll_wait(it->epoll, events, EVENTS_PER_TURN, timeout_ms);
  atomic_store(&it->sleeping, false);
  it->now = monotonic_ns();
  for (int i = 0; i < count; i++) handle(it, events[i].data.ptr, events[i].events);
  listeners_serve(it);
  turns_serve(it);
  run_commands(it);
  principals_review_some(it);
  loop_take_completions(it);
  pass_deadlines(it);
  drain_turn(it);
  timeouts_pass(it);
  if (!list_empty(&it->submitted)) it->service->submit_all(it);
  turns_write(it);
  loop_free_ended(it);
}

void *loop_main(void *argument) {
  front *it = argument;
  /* A thread names itself: to name another thread, /proc/self/task would have to be writable, and with it our code. */
  pthread_setname_np(pthread_self(), "offload-front");
  while (!it->stopping) loop_turn(it, prepare_wait(it));
  return NULL;
}
