/* The front's event loop, and its state. Everything here belongs to the front's thread unless noted otherwise. */
#ifndef OFFLOAD_GRPC_LOOP_H
#define OFFLOAD_GRPC_LOOP_H

#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>

#include "offload/dataplane/grpc/arrivals.h"
#include "offload/dataplane/grpc/drain.h"
#include "offload/dataplane/grpc/front.h"
#include "offload/dataplane/host/locked_stack.h"

/* ---- sources of events ---- */

typedef enum source_kind { SOURCE_WAKE, SOURCE_LISTENER, SOURCE_CONNECTION } source_kind;

typedef struct event_source {
  source_kind kind;
  int descriptor;
} event_source;

/* ---- the front ---- */

typedef struct command {
  void (*run)(front *front, void *argument);
  void *argument;
  struct command *next;
  bool done;
} command;

struct front {
  front_settings settings;
  const front_service *service;
  work_queue *work;
  counters *counters;
  refusal_log *refusals;
  key_uses *uses; /* NULL when they are not counted */
  nghttp2_session_callbacks *callbacks;
  nghttp2_option *options;
  int epoll;
  event_source wake;
  int spare; /* a descriptor to close when no others are left */
  uint64_t now;
  keyring *ring;
  uint64_t generation;
  uint64_t id_multiplier; /* odd, random: clients cannot aim at one chain of ids */
  operation_pool operations;
  list_node submitted; /* operations decoded in this turn, by item.link */
  list_node listeners, connections, ended, watchers;
  list_node principals, turns, stranger_turns, writers, stranger_writers;
  list_node idle, stalled, leaving;
  list_node reviewed, unreviewed;
  size_t stranger_memory;
  uint32_t stranger_connections;
  uint64_t strangers_rest_until;
  list_node arriving; /* listeners */
  uint64_t accept_rests_until;
  arrival arrivals[ARRIVAL_SLOTS];
  deadline_heap deadlines; /* of calls */
  struct call *free_calls;
  uint8_t *read_buffer, *write_buffer;
  struct epoll_event *events;
  kernel_workspace *workspace; /* for batches that are not worth a wake-up; NULL: the shards run all */

  drain_phase drain;
  uint64_t drain_began;

  pthread_t thread;
  locked_stack stack;
  bool started, stopping;
  atomic_bool draining, sleeping;
  pthread_mutex_t lock; /* guards commands, drained */
  pthread_cond_t changed;
  command *first_command, **last_command;
  bool drained;
};

/* An event costs about 100 ns and is reported once (edge-triggered), so many are taken at once: a caller's first byte
 * does not wait behind those of others for several turns. */
enum { EVENTS_PER_TURN = 1024 };

void loop_wake(void *front); /* from any thread */
bool loop_watch(front *front, event_source *source, uint32_t events);
/* Also closes the descriptor. Closing alone is not enough: while another process has a duplicate (a child between fork
 * and exec, or the creator of a listening socket), epoll would continue to report a freed source. */
void loop_unwatch(front *front, event_source *source);
bool loop_take_spare(front *front); /* opens the spare descriptor */
/* May be called by any thread; returns when the front's thread has run the command. */
void loop_run_command(front *it, void (*run)(front *front, void *argument), void *argument);
void loop_turn(front *front, int timeout_ms);
void loop_take_completions(front *front);
void loop_free_ended(front *front); /* connections to which nothing refers any more */
void *loop_main(void *front);       /* runs turns until the front stops */

#endif
