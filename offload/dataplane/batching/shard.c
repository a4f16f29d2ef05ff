#include "offload/dataplane/batching/shard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/dataplane/host/locked_stack.h"
#include "offload/dataplane/host/monotonic.h"

struct shard {
  list_node link; /* in work->idle while it sleeps */
  pthread_cond_t woken;
  bool asleep;
  work_queue *work;
  unsigned number;
  kernel_workspace *workspace;
  pthread_t thread;
  locked_stack stack;
};

/* ---- the queue ---- */

bool work_queue_init(work_queue *work, uint32_t queue_limit, uint32_t source_limit, uint32_t group_limit,
                     uint64_t max_wait_ns) {
  memset(work, 0, sizeof *work);
  work->sleeping_until = NEVER;
  list_init(&work->idle);
  cost_model_defaults(&work->costs);
  pthread_mutex_init(&work->lock, NULL);
  return batcher_init(&work->batcher, &work->costs, queue_limit, source_limit, group_limit, max_wait_ns);
}

void work_queue_free(work_queue *work) {
  batcher_free(&work->batcher);
  pthread_mutex_destroy(&work->lock);
}

static void wake(work_queue *work, shard *it) {
  list_remove(&it->link);
  it->asleep = false;
  work->idle_count--;
  pthread_cond_signal(&it->woken);
}

void work_queue_wake(work_queue *work, uint64_t now) {
  if (work->idle_count == 0) return;
  uint64_t ready = batcher_ready_at(&work->batcher, now);
  if (ready == NEVER) return;
  unsigned wanted = 1;
  if (ready == 0) {
    wanted = batcher_shards_wanted(&work->batcher, work->idle_count);
  } else if (work->sleeping_until <= ready) {
    return; /* a shard will be awake in time */
  }
  for (; wanted > 0; wanted--) wake(work, LIST_ENTRY(work->idle.previous, shard, link));
}

/* The one class that has operations queued, or -1 when there are several or none. */
static int only_class(const batcher *all) {
  int found = -1;
  for (unsigned algorithm = 0; algorithm < KERNEL_ALGORITHMS; algorithm++) {
    if (all->classes[algorithm].queued == 0) continue;
    if (found >= 0) return -1;
    found = (int)algorithm;
  }
  return found;
}

bool work_queue_take_lone(work_queue *work, uint64_t now, batch *taken) {
  taken->count = 0;
  int algorithm = work->idle_count == work->shard_count ? only_class(&work->batcher) : -1;
  if (algorithm < 0 || deadlines_next(&work->batcher.deadlines) <= now)
    return false; /* a shard sorts out the expired */
  unsigned queued = work->batcher.classes[algorithm].queued;
  const uint64_t most = (queued == 1 ? WORK_LONE_NS : WORK_SHORT_NS) + work->costs.overhead_ns;
  if (queued > KERNEL_LANES || work->costs.best_ns[algorithm][queued] > most) return false;
  if (cost_model_batch_size(&work->costs, (kernel_algorithm)algorithm, queued, false) != queued) return false;
  batcher_take(&work->batcher, now, false, taken);
  return taken->count > 0;
}

void work_queue_stop(work_queue *work) {
  pthread_mutex_lock(&work->lock);
  work->stopping = true;
  while (!list_empty(&work->idle)) wake(work, LIST_ENTRY(work->idle.next, shard, link));
  pthread_mutex_unlock(&work->lock);
}

/* ---- one batch ---- */

static void record(work_queue *work, const batch *taken, uint64_t started, uint64_t finished) {
  class_counters *of_class = &work->counters->classes[taken->algorithm];
  counter_add(&of_class->batches[taken->backend][taken->reason][taken->count], 1);
  counter_add(&of_class->run.buckets[histogram_bucket(finished - started)], 1);
  counter_add(&of_class->run.sum_ns, finished - started);
}

void work_queue_run(work_queue *work, const batch *taken, kernel_workspace *workspace) {
  sign_operation *operations[KERNEL_LANES];
  for (unsigned i = 0; i < taken->count; i++) {
    operations[i] = &LIST_ENTRY(taken->items[i], operation, item)->sign;
  }
  uint64_t started = monotonic_ns();
  sign_batch(work->backends[taken->backend], taken->algorithm, operations, taken->count, workspace);
  uint64_t finished = monotonic_ns();
  for (unsigned i = 0; i < taken->count; i++) {
    operation *op = LIST_ENTRY(taken->items[i], operation, item);
    op->started = started;
    op->finished = finished;
    op->batch_size = (uint8_t)taken->count;
    /* A lane that was redone was computed in software, whatever computed the others. */
    op->backend = op->sign.redone ? 0 : (uint8_t)taken->backend;
  }
  record(work, taken, started, finished);
}

/* Hands a finished batch and expired operations to the front. They must not be touched afterwards. */
static void post(work_queue *work, const batch *finished, list_node *expired) {
  operation *first = NULL, *last = NULL;
  for (unsigned i = finished->count; i-- > 0;) { /* a stack: pushed backwards, taken in order */
    operation *op = LIST_ENTRY(finished->items[i], operation, item);
    if (last == NULL) first = op;
    if (last != NULL) last->next = op;
    last = op;
  }
  for (list_node *node; (node = list_pop(expired)) != NULL;) {
    operation *op = LIST_ENTRY(node, operation, item.link);
    op->expired = true;
    if (last == NULL) first = op;
    if (last != NULL) last->next = op;
    last = op;
  }
  if (first == NULL) return;
  completions_push(&work->done, first, last);
  work->wake_front(work->front);
}

/* ---- the thread ---- */

/* Sleeps until woken, or until the batcher will have a batch without further arrivals. Call with the lock held. */
static void sleep_until(shard *it, uint64_t ready) {
  work_queue *work = it->work;
  it->asleep = true;
  work->idle_count++;
  list_push(&work->idle, &it->link);
  if (ready < work->sleeping_until) work->sleeping_until = ready;
  struct timespec until = {.tv_sec = (time_t)(ready / 1000000000u), .tv_nsec = (long)(ready % 1000000000u)};
  while (it->asleep) {
    if (ready == NEVER) {
      pthread_cond_wait(&it->woken, &work->lock);
    } else if (pthread_cond_timedwait(&it->woken, &work->lock, &until) == ETIMEDOUT && it->asleep) {
      list_remove(&it->link);
      it->asleep = false;
      work->idle_count--;
    }
  }
  if (work->sleeping_until == ready) work->sleeping_until = NEVER;
}

/* A thread names itself: to name another thread, /proc/self/task would have to be writable, and with it our code. */
static void name_this_thread(unsigned number) {
  char name[16];
  snprintf(name, sizeof name, "offload-shard%u", number % 100);
  pthread_setname_np(pthread_self(), name);
}

static void *shard_main(void *argument) {
  shard *it = argument;
  name_this_thread(it->number);
  work_queue *work = it->work;
  batch current = {.count = 0};
  list_node expired;
  list_init(&expired);
  pthread_mutex_lock(&work->lock);
  for (;;) {
    batch finished = current;
    batcher_complete(&work->batcher, finished.items, finished.count);
    uint64_t now = monotonic_ns();
    batcher_expire(&work->batcher, now, &expired);
    current.count = 0;
    if (!work->stopping) batcher_take(&work->batcher, now, work->idle_count > 0, &current);
    bool nothing_to_post = finished.count == 0 && list_empty(&expired);
    if (current.count == 0 && nothing_to_post) {
      if (work->stopping) break;
      sleep_until(it, batcher_ready_at(&work->batcher, now));
      continue;
    }
    pthread_mutex_unlock(&work->lock);
    post(work, &finished, &expired); /* before the next batch, so that those who wait for the results can continue */
    if (current.count > 0) work_queue_run(work, &current, it->workspace);
    pthread_mutex_lock(&work->lock);
  }
  pthread_mutex_unlock(&work->lock);
  return NULL;
}

/* ---- start and end ---- */

static bool create_thread(shard *it, unsigned number, char error[KERNEL_ERROR_MAX]) {
  it->number = number;
  int failure = locked_stack_start(&it->stack, &it->thread, shard_main, it);
  if (failure != 0) {
    snprintf(error, KERNEL_ERROR_MAX, "cannot start kernel thread %u: %s", number, strerror(failure));
    return false;
  }
  return true;
}

static void free_shard(shard *it) {
  locked_stack_free(&it->stack);
  kernel_workspace_free(it->workspace);
  pthread_cond_destroy(&it->woken);
  free(it);
}

shard *shard_start(work_queue *work, unsigned number, char error[KERNEL_ERROR_MAX]) {
  shard *it = calloc(1, sizeof *it);
  if (it == NULL) {
    snprintf(error, KERNEL_ERROR_MAX, "no memory for kernel thread %u", number);
    return NULL;
  }
  it->work = work;
  list_init(&it->link);
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&it->woken, &monotonic);
  pthread_condattr_destroy(&monotonic);
  it->workspace = kernel_workspace_new();
  if (it->workspace == NULL) {
    snprintf(error, KERNEL_ERROR_MAX, "no locked memory for the workspace of kernel thread %u (RLIMIT_MEMLOCK)",
             number);
  } else if (create_thread(it, number, error)) {
    pthread_mutex_lock(&work->lock);
    work->shard_count++;
    pthread_mutex_unlock(&work->lock);
    return it;
  }
  free_shard(it);
  return NULL;
}

void shard_join(shard *it) {
  pthread_join(it->thread, NULL);
  free_shard(it);
}
