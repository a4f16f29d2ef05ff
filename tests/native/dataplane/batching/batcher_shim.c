/* Wraps the batcher with numbers in place of pointers, so that Python can drive it: sources and items are indices, and
 * the clock is an argument. Source n belongs to the user n / sources_per_group. */
#include <stdlib.h>
#include <string.h>

#include "offload/dataplane/batching/batcher.h"

enum { SHIM_SOURCES = 64, SHIM_ITEMS = 65536 };

typedef struct shim {
  cost_model costs;
  batcher batcher;
  batch_group groups[SHIM_SOURCES];
  batch_source sources[SHIM_SOURCES];
  batch_item items[SHIM_ITEMS];
} shim;

/* `ns`: times of batches of 1..8 per backend and class, in the order [backend][class][size]. */
shim *shim_new(const uint64_t *ns, unsigned backends, uint64_t overhead_ns, uint32_t queue_limit, uint32_t source_limit,
               uint32_t group_limit, unsigned sources_per_group, uint64_t max_wait) {
  shim *it = calloc(1, sizeof *it);
  it->costs.backends = backends;
  it->costs.overhead_ns = overhead_ns;
  for (unsigned backend = 0; backend < backends; backend++) {
    for (unsigned algorithm = 0; algorithm < KERNEL_ALGORITHMS; algorithm++) {
      for (unsigned count = 1; count <= KERNEL_LANES; count++) it->costs.ns[backend][algorithm][count] = *ns++;
    }
  }
  cost_model_settle(&it->costs);
  batcher_init(&it->batcher, &it->costs, queue_limit, source_limit, group_limit, max_wait);
  for (unsigned i = 0; i < SHIM_SOURCES; i++) {
    batch_group_init(&it->groups[i]);
    batch_source_init(&it->sources[i], &it->groups[i / sources_per_group]);
  }
  return it;
}

void shim_free(shim *it) {
  batcher_free(&it->batcher);
  free(it);
}

int shim_submit(shim *it, unsigned item, unsigned source, unsigned algorithm, uint64_t arrived, uint64_t deadline) {
  batch_item *made = &it->items[item];
  memset(made, 0, sizeof *made);
  list_init(&made->link);
  made->source = &it->sources[source];
  made->algorithm = (uint8_t)algorithm;
  made->arrived = arrived;
  made->deadline.at = deadline;
  return batcher_submit(&it->batcher, made);
}

void shim_regroup(shim *it, unsigned source, unsigned group) {
  batcher_regroup(&it->batcher, &it->sources[source], &it->groups[group]);
}

static unsigned index_of(const shim *it, const batch_item *item) {
  return (unsigned)(item - it->items);
}

unsigned shim_expire(shim *it, uint64_t now, unsigned expired[]) {
  list_node list;
  list_init(&list);
  batcher_expire(&it->batcher, now, &list);
  unsigned count = 0;
  for (list_node *node; (node = list_pop(&list)) != NULL;) {
    expired[count++] = index_of(it, LIST_ENTRY(node, batch_item, link));
  }
  return count;
}

/* Returns the size of the batch; what[] gets class, backend and reason. */
unsigned shim_take(shim *it, uint64_t now, bool others_idle, unsigned items[KERNEL_LANES], unsigned what[3]) {
  batch taken;
  batcher_take(&it->batcher, now, others_idle, &taken);
  for (unsigned i = 0; i < taken.count; i++) items[i] = index_of(it, taken.items[i]);
  if (taken.count > 0) {
    what[0] = taken.algorithm;
    what[1] = taken.backend;
    what[2] = taken.reason;
  }
  return taken.count;
}

bool shim_cancel(shim *it, unsigned item) {
  return batcher_cancel(&it->batcher, &it->items[item]);
}

void shim_complete(shim *it, const unsigned items[], unsigned count) {
  batch_item *pointers[KERNEL_LANES];
  for (unsigned i = 0; i < count; i++) pointers[i] = &it->items[items[i]];
  batcher_complete(&it->batcher, pointers, count);
}

uint64_t shim_ready_at(const shim *it, uint64_t now) {
  return batcher_ready_at(&it->batcher, now);
}
unsigned shim_shards_wanted(const shim *it, unsigned limit) {
  return batcher_shards_wanted(&it->batcher, limit);
}
uint32_t shim_queued(const shim *it) {
  return it->batcher.queued;
}
uint32_t shim_load(const shim *it, unsigned source) {
  return it->sources[source].load;
}
uint32_t shim_group_load(const shim *it, unsigned group) {
  return it->groups[group].load;
}
uint64_t shim_cost(const shim *it, unsigned algorithm, unsigned count) {
  return it->costs.best_ns[algorithm][count];
}
unsigned shim_best(const shim *it, unsigned algorithm, unsigned count) {
  return it->costs.best[algorithm][count];
}
unsigned shim_batch_size(const shim *it, unsigned algorithm, unsigned available, bool others_idle) {
  return cost_model_batch_size(&it->costs, algorithm, available, others_idle);
}
unsigned shim_crossover(const shim *it, unsigned algorithm, unsigned backend) {
  return cost_model_crossover(&it->costs, algorithm, backend);
}
