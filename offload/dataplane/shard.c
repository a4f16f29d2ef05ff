#include "shard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "monotonic.h"

/* Kernels keep their tables in the workspace; what they spill is on the stack, which is therefore treated as the keys
 * are: locked, left out of core dumps and of children, wiped when the thread has ended. */
enum { STACK_SIZE = 256 * 1024 };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STACK_FACTOR = 8 };
#else
enum { STACK_FACTOR = 1 };
#endif

struct shard {
  list_node link; /* in work->idle while it sleeps */
  pthread_cond_t woken;
  bool asleep;
  work_queue *work;
  kernel_workspace *workspace;
  pthread_t thread;
  uint8_t *stack; /* begins with a guard page */
  size_t stack_size;
};

/* ---- the queue ---- */

bool work_queue_init(work_queue *work, uint32_t queue_limit, uint32_t source_limit, uint64_t max_wait_ns) {
  memset(work, 0, sizeof *work);
  work->sleeping_until = NEVER;
  list_init(&work->idle);
  cost_model_defaults(&work->costs);
  pthread_mutex_init(&work->lock, NULL);
  return batcher_init(&work->batcher, &work->costs, queue_limit, source_limit, max_wait_ns);
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
    return; /* somebody will be there in time */
  }
  for (; wanted > 0; wanted--) wake(work, LIST_ENTRY(work->idle.next, shard, link));
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

static void run(shard *it, const batch *taken) {
  sign_operation *operations[KERNEL_LANES];
  for (unsigned i = 0; i < taken->count; i++) {
    operations[i] = &LIST_ENTRY(taken->items[i], operation, item)->sign;
  }
  uint64_t started = monotonic_ns();
  sign_batch(it->work->backends[taken->backend], taken->algorithm, operations, taken->count, it->workspace);
  uint64_t finished = monotonic_ns();
  for (unsigned i = 0; i < taken->count; i++) {
    operation *op = LIST_ENTRY(taken->items[i], operation, item);
    op->started = started;
    op->finished = finished;
    op->batch_size = (uint8_t)taken->count;
    /* A lane that was redone was computed by software, whatever the others were. */
    op->backend = op->sign.redone ? 0 : (uint8_t)taken->backend;
  }
  record(it->work, taken, started, finished);
}

/* Hands a finished batch and expired operations to the front. Nothing of them may be touched afterwards. */
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

/* Until woken, or until the batcher will have something by itself. With the lock held. */
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

static void *shard_main(void *argument) {
  shard *it = argument;
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
    post(work, &finished, &expired); /* before the next batch: those who wait for it can go on */
    if (current.count > 0) run(it, &current);
    pthread_mutex_lock(&work->lock);
  }
  pthread_mutex_unlock(&work->lock);
  return NULL;
}

/* ---- start and end ---- */

static bool map_stack(shard *it, char error[KERNEL_ERROR_MAX]) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  it->stack_size = STACK_SIZE * STACK_FACTOR + page;
  it->stack = mmap(NULL, it->stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (it->stack == MAP_FAILED) {
    it->stack = NULL;
    snprintf(error, KERNEL_ERROR_MAX, "no memory for the stack of a kernel thread: %s", strerror(errno));
    return false;
  }
  mprotect(it->stack, page, PROT_NONE);
  madvise(it->stack, it->stack_size, MADV_DONTDUMP);
  /* Best effort, as with keys when the limit is too low: secret_memory_kind() tells, the daemon decides. */
  (void)mlock(it->stack + page, it->stack_size - page);
  return true;
}

static bool create_thread(shard *it, unsigned number, char error[KERNEL_ERROR_MAX]) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, it->stack + page, it->stack_size - page);
  int failure = pthread_create(&it->thread, &attributes, shard_main, it);
  pthread_attr_destroy(&attributes);
  if (failure != 0) {
    snprintf(error, KERNEL_ERROR_MAX, "cannot start kernel thread %u: %s", number, strerror(failure));
    return false;
  }
  char name[16];
  snprintf(name, sizeof name, "offload-shard%u", number % 100);
  pthread_setname_np(it->thread, name);
  return true;
}

static void free_shard(shard *it) {
  if (it->stack != NULL) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    explicit_bzero(it->stack + page, it->stack_size - page);
    munmap(it->stack, it->stack_size);
  }
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
  } else if (map_stack(it, error) && create_thread(it, number, error)) {
    return it;
  }
  free_shard(it);
  return NULL;
}

void shard_join(shard *it) {
  pthread_join(it->thread, NULL);
  free_shard(it);
}
