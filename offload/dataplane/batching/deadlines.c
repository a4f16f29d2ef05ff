#include "offload/dataplane/batching/deadlines.h"

#include <stdlib.h>

bool deadlines_init(deadline_heap *heap, size_t capacity) {
  *heap = (deadline_heap){.items = calloc(capacity, sizeof(deadline *)), .capacity = capacity};
  return heap->items != NULL;
}

void deadlines_free(deadline_heap *heap) {
  free(heap->items);
  *heap = (deadline_heap){0};
}

static void put(deadline_heap *heap, size_t index, deadline *item) {
  heap->items[index] = item;
  item->place = index + 1;
}

static void rise(deadline_heap *heap, size_t index, deadline *item) {
  while (index > 0) {
    size_t parent = (index - 1) / 2;
    if (heap->items[parent]->at <= item->at) break;
    put(heap, index, heap->items[parent]);
    index = parent;
  }
  put(heap, index, item);
}

static void sink(deadline_heap *heap, size_t index, deadline *item) {
  for (;;) {
    size_t child = 2 * index + 1;
    if (child >= heap->count) break;
    if (child + 1 < heap->count && heap->items[child + 1]->at < heap->items[child]->at) child++;
    if (item->at <= heap->items[child]->at) break;
    put(heap, index, heap->items[child]);
    index = child;
  }
  put(heap, index, item);
}

bool deadlines_add(deadline_heap *heap, deadline *item) {
  if (heap->count == heap->capacity) {
    size_t capacity = heap->capacity == 0 ? 16 : 2 * heap->capacity;
    deadline **items = realloc(heap->items, capacity * sizeof(deadline *));
    if (items == NULL) return false;
    heap->items = items;
    heap->capacity = capacity;
  }
  rise(heap, heap->count++, item);
  return true;
}

void deadlines_remove(deadline_heap *heap, deadline *item) {
  if (item->place == 0) return;
  size_t index = item->place - 1;
  deadline *last = heap->items[--heap->count];
  item->place = 0;
  if (last == item) return;
  if (last->at < item->at) {
    rise(heap, index, last);
  } else {
    sink(heap, index, last);
  }
}

deadline *deadlines_take_due(deadline_heap *heap, uint64_t now) {
  if (deadlines_next(heap) > now) return NULL;
  deadline *item = heap->items[0];
  deadlines_remove(heap, item);
  return item;
}
