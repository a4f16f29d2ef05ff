/* Finished operations on their way from the shards to the front: a stack that any thread pushes to and the front takes
 * whole. */
#ifndef OFFLOAD_COMPLETIONS_H
#define OFFLOAD_COMPLETIONS_H

#include <stdatomic.h>

#include "offload/dataplane/batching/operation.h"

typedef struct completions {
  _Atomic(operation *) top;
} completions;

static inline void completions_push(completions *done, operation *first, operation *last) {
  operation *top = atomic_load_explicit(&done->top, memory_order_relaxed);
  do {
    last->next = top;
  } while (!atomic_compare_exchange_weak(&done->top, &top, first));
}

static inline bool completions_waiting(const completions *done) {
  return atomic_load(&done->top) != NULL;
}

/* Takes all of them, in the order of completion, chained by `next`. */
operation *completions_take(completions *done);

#endif
