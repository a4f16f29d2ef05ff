/* Counters and histograms of the data plane: relaxed atomics, written by front and shards, read by anyone.
 *
 * Histograms have bounds of 2^k microseconds, k = 0..COUNTER_BOUNDS-1 (1 us to 8.4 s), and one bucket for longer times:
 * a bucket counts the times that are at most its bound and above the previous bound.
 */
#ifndef OFFLOAD_COUNTERS_H
#define OFFLOAD_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

#include "offload/dataplane/batching/batcher.h"
#include "offload/dataplane/wire/status.h"

enum { COUNTER_BOUNDS = 24, COUNTER_BUCKETS = COUNTER_BOUNDS + 1 };

typedef _Atomic uint64_t counter;

typedef struct histogram {
  counter buckets[COUNTER_BUCKETS];
  counter sum_ns;
} histogram;

typedef struct class_counters {
  /* Indexed by status, and by backend + 1, or 0 for operations that were not run. */
  counter operations[RPC_STATUSES][COST_BACKENDS_MAX + 1];
  counter batches[COST_BACKENDS_MAX][BATCH_REASONS][KERNEL_LANES + 1];
  histogram queue; /* per operation: from arrival to the start of its batch */
  histogram run;   /* per batch */
} class_counters;

typedef struct counters {
  class_counters classes[KERNEL_ALGORITHMS];
  counter connections, connections_total, streams, watchers; /* all but the total are gauges */
} counters;

static inline void counter_add(counter *it, uint64_t more) {
  atomic_fetch_add_explicit(it, more, memory_order_relaxed);
}

static inline void counter_subtract(counter *it, uint64_t less) {
  atomic_fetch_sub_explicit(it, less, memory_order_relaxed);
}

static inline uint64_t counter_read(const counter *it) {
  return atomic_load_explicit((counter *)it, memory_order_relaxed);
}

/* For counters that only one thread writes: needs no locked instruction. */
static inline void counter_add_owned(counter *it, uint64_t more) {
  atomic_store_explicit(it, counter_read(it) + more, memory_order_relaxed);
}

static inline uint64_t counters_operations(const counters *all, unsigned algorithm, unsigned status, unsigned ran_on) {
  return counter_read(&all->classes[algorithm].operations[status][ran_on]);
}

static inline uint64_t counters_batches(const counters *all, unsigned algorithm, unsigned backend, unsigned reason,
                                        unsigned size) {
  return counter_read(&all->classes[algorithm].batches[backend][reason][size]);
}

static inline unsigned histogram_bucket(uint64_t ns) {
  if (ns <= 1000) return 0;
  uint64_t us = (ns + 999) / 1000; /* 2 or more */
  unsigned bucket = 64 - (unsigned)__builtin_clzll(us - 1);
  return bucket < COUNTER_BOUNDS ? bucket : COUNTER_BOUNDS;
}

#endif
