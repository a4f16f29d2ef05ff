/* Kernel threads. Each takes a batch from the batcher, runs it, and posts the results. All share one work queue under
 * one lock, which is held for tens of nanoseconds per operation, and never while a kernel runs.
 */
#ifndef OFFLOAD_SHARD_H
#define OFFLOAD_SHARD_H

#include <pthread.h>

#include "offload/dataplane/batching/completions.h"
#include "offload/dataplane/batching/counters.h"
#include "offload/dataplane/batching/operation.h"

typedef struct shard shard;

/* The state that front and shards share. */
typedef struct work_queue {
  pthread_mutex_t lock; /* guards batcher, costs, idle, counts, stopping, sleeping_until */
  batcher batcher;
  cost_model costs;
  const kernel_backend *backends[COST_BACKENDS_MAX]; /* in the order of the cost model */
  list_node idle; /* shards that sleep, the latest to fall asleep last: it is woken first, its caches are warmest */
  unsigned idle_count, shard_count;
  uint64_t sleeping_until; /* when the first sleeping shard wakes by itself (max_wait); NEVER if none does */
  bool stopping;
  counters *counters;
  completions done;
  void (*wake_front)(void *front); /* called after something was posted to `done`; must be cheap when it is awake */
  void *front;
} work_queue;

bool work_queue_init(work_queue *work, uint32_t queue_limit, uint32_t source_limit, uint32_t group_limit,
                     uint64_t max_wait_ns);
void work_queue_free(work_queue *work);

/* Wakes as many sleeping shards as the queued operations can occupy. Call with the lock held. */
void work_queue_wake(work_queue *work, uint64_t now);

/* Waking a shard and being woken by it costs 20 to 35 us each time on virtual machines, and the thread's caches have
 * gone cold. A short batch is therefore run by the front itself, provided that nothing else is queued and every shard
 * sleeps: with more work than that, the shards are needed, and awake anyway. Others who come meanwhile wait for it. So
 * one operation may take what calibration measured for RSA-2048 alone on two 512-bit multipliers (165 us in the daemon)
 * and some more, but several together no more than a wake-up costs. */
enum { WORK_LONE_NS = 250000, WORK_SHORT_NS = 40000 };

/* Takes that batch; false when there is none. Call with the lock held, then run the batch without it, and call
 * batcher_complete. */
bool work_queue_take_lone(work_queue *work, uint64_t now, batch *taken);

/* Runs a batch on the calling thread, whose stack should be a locked one. */
void work_queue_run(work_queue *work, const batch *taken, kernel_workspace *workspace);

/* Starts a thread; NULL with the reason in `error` when that fails. */
shard *shard_start(work_queue *work, unsigned number, char error[KERNEL_ERROR_MAX]);

/* Tells all shards to end after their batch; then join each. */
void work_queue_stop(work_queue *work);
void shard_join(shard *shard);

#endif
