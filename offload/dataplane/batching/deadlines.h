/* Deadlines in order: a binary heap of intrusive nodes. No clock: the caller passes the time. */
#ifndef OFFLOAD_DEADLINES_H
#define OFFLOAD_DEADLINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NEVER UINT64_MAX

typedef struct deadline {
  uint64_t at;  /* nanoseconds of the monotonic clock */
  size_t place; /* 1 + index in the heap; 0 when not in it */
} deadline;

typedef struct deadline_heap {
  deadline **items;
  size_t count, capacity;
} deadline_heap;

bool deadlines_init(deadline_heap *heap, size_t capacity);
void deadlines_free(deadline_heap *heap);

/* Grows when full; false when memory ran out. */
bool deadlines_add(deadline_heap *heap, deadline *item);
void deadlines_remove(deadline_heap *heap, deadline *item); /* harmless when it is not in the heap */

/* Removes and returns the earliest that is due at `now`, or NULL. */
deadline *deadlines_take_due(deadline_heap *heap, uint64_t now);

/* When the earliest is due; NEVER when there is none. */
static inline uint64_t deadlines_next(const deadline_heap *heap) {
  return heap->count == 0 ? NEVER : heap->items[0]->at;
}

#endif
