/* The allocator over locked pages: size classes in spans, a small cache per thread.
 *
 * A span of 16 KiB holds blocks of one class, or begins a run of spans for one large block. The metadata of a span is
 * in ordinary memory (`table`); the locked pages hold only the blocks, and a free block, which is wiped, holds the link
 * to the next free one.
 *
 * An RSA signature of BoringSSL allocates and frees dozens of small blocks: those come from the thread's cache, without
 * a lock. A cache exchanges half of its capacity with the class at a time, under the lock of the class; a class takes
 * and returns whole spans under the lock of the pages.
 */
#include "kernels/secret_memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/secret_pages.h"

#ifndef SECRET_MEMORY_MALLOC

enum { CLASSES = 17, CLASS_MAX = 8192, GRAIN = 64, CACHE_BYTES = 4096, CACHE_BLOCKS_MAX = 32, LARGE = CLASSES };

/* Multiples of 64, so that a block is aligned to a cache line; those of a page and more divide the span in pages. */
static const uint16_t class_size[CLASSES] = {64,  128, 192,  256,  320,  384,  448,  512, 640,
                                             768, 896, 1024, 1280, 1600, 2688, 4096, 8192};

typedef struct block {
  struct block *next;
} block;

typedef struct span {
  block *free;              /* blocks that are free here (not those in threads' caches) */
  struct span *next, *prev; /* in the class's list of spans with free blocks */
  uint32_t run;             /* spans of the large block that begins here */
  uint16_t free_count;
  uint8_t class; /* LARGE for large blocks */
  bool taken;
} span;

typedef struct size_class {
  pthread_mutex_t lock;
  span *partial; /* spans with at least one free block */
} size_class;

typedef struct cache {
  block *free[CLASSES];
  _Atomic uint16_t count[CLASSES]; /* written by its thread alone; read by secret_memory_used */
  struct cache *next, *prev;
} cache;

static span table[SPANS_MAX];
static size_class classes[CLASSES];
static uint8_t class_of_grains[CLASS_MAX / GRAIN + 1];

static pthread_mutex_t pages_lock = PTHREAD_MUTEX_INITIALIZER; /* table's `taken` and `run`, growth, `lowest_free` */
static size_t lowest_free;                                     /* no span below it is free */
static atomic_size_t handed_out;                               /* bytes in blocks outside spans, caches included */

static pthread_mutex_t caches_lock = PTHREAD_MUTEX_INITIALIZER;
static cache *caches;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_exit;

/* The child of a fork does not have the pages: addresses in the parent's range are invalid there. */
static uint8_t *lost_base;

/* Initial-exec, because the call that looks up a thread-local of a shared library would cost more than the allocation.
 * Two words fit into the space that the loader reserves for libraries loaded later. */
static __thread struct {
  cache *cache;
  bool exiting; /* the destructor has run; what BoringSSL's destructors free later goes straight to the class */
} thread __attribute__((tls_model("initial-exec")));

static void wipe(void *pointer, size_t size) {
  memset(pointer, 0, size);
  __asm__ __volatile__("" : : "r"(pointer) : "memory");
}

/* ---- Spans ---- */

/* Takes `count` adjacent free spans and returns the first; SPANS_MAX when there are none. Call under pages_lock. */
static size_t find_run(size_t count, size_t mapped) {
  size_t length = 0;
  for (size_t i = lowest_free; i < mapped; i++) {
    length = table[i].taken ? 0 : length + 1;
    if (length == count) return i + 1 - count;
  }
  return SPANS_MAX;
}

static span *take_run(size_t count) {
  pthread_mutex_lock(&pages_lock);
  size_t first = find_run(count, secret_pages_mapped());
  if (first == SPANS_MAX) {
    size_t mapped = secret_pages_grow(count);
    if (mapped != 0) first = find_run(count, mapped);
  }
  span *result = NULL;
  if (first != SPANS_MAX) {
    result = &table[first];
    for (size_t i = 0; i < count; i++) table[first + i].taken = true;
    result->run = (uint32_t)count;
    while (lowest_free < SPANS_MAX && table[lowest_free].taken) lowest_free++;
  }
  pthread_mutex_unlock(&pages_lock);
  return result;
}

/* Zeroes the spans before they can be taken again. */
static void give_run(span *first) {
  size_t index = (size_t)(first - table);
  size_t count = first->run;
  wipe(secret_base + index * SPAN_SIZE, count * SPAN_SIZE);
  pthread_mutex_lock(&pages_lock);
  for (size_t i = 0; i < count; i++) table[index + i].taken = false;
  if (index < lowest_free) lowest_free = index;
  pthread_mutex_unlock(&pages_lock);
}

static span *span_of(const void *pointer) {
  size_t offset = (size_t)((const uint8_t *)pointer - secret_base);
  size_t index = offset / SPAN_SIZE;
  if (secret_base == NULL || (const uint8_t *)pointer < secret_base || index >= SPANS_MAX || !table[index].taken) {
    fprintf(stderr, "secret_memory: %p was not allocated here\n", pointer);
    abort();
  }
  return &table[index];
}

/* ---- Classes ---- */

static void link_partial(size_class *class, span *s) {
  s->prev = NULL;
  s->next = class->partial;
  if (s->next != NULL) s->next->prev = s;
  class->partial = s;
}

static void unlink_partial(size_class *class, span *s) {
  if (s->prev != NULL) {
    s->prev->next = s->next;
  } else {
    class->partial = s->next;
  }
  if (s->next != NULL) s->next->prev = s->prev;
}

static unsigned blocks_per_span(unsigned index) {
  return SPAN_SIZE / class_size[index];
}

/* Adds a fresh span, cut into blocks. Call under the class's lock. */
static bool add_span(unsigned index) {
  span *s = take_run(1);
  if (s == NULL) return false;
  uint8_t *start = secret_base + (size_t)(s - table) * SPAN_SIZE;
  s->class = (uint8_t)index;
  s->free = NULL;
  s->free_count = (uint16_t)blocks_per_span(index);
  for (unsigned i = s->free_count; i-- > 0;) {
    block *b = (block *)(start + (size_t)i * class_size[index]);
    b->next = s->free;
    s->free = b;
  }
  link_partial(&classes[index], s);
  return true;
}

/* Takes up to `wanted` blocks of a class as a linked list, and returns how many. 0 when memory ran out. */
static unsigned class_take(unsigned index, unsigned wanted, block **list) {
  size_class *class = &classes[index];
  unsigned count = 0;
  pthread_mutex_lock(&class->lock);
  while (count < wanted) {
    /* A new span only for the block that is needed now, not to fill a cache. */
    if (class->partial == NULL && (count > 0 || !add_span(index))) break;
    span *s = class->partial;
    block *b = s->free;
    s->free = b->next;
    if (--s->free_count == 0) unlink_partial(class, s);
    b->next = *list;
    *list = b;
    count++;
  }
  pthread_mutex_unlock(&class->lock);
  atomic_fetch_add_explicit(&handed_out, (size_t)count * class_size[index], memory_order_relaxed);
  return count;
}

static void class_give(unsigned index, block *list, unsigned count) {
  size_class *class = &classes[index];
  atomic_fetch_sub_explicit(&handed_out, (size_t)count * class_size[index], memory_order_relaxed);
  pthread_mutex_lock(&class->lock);
  while (list != NULL) {
    block *b = list;
    list = b->next;
    span *s = span_of(b);
    b->next = s->free;
    s->free = b;
    if (++s->free_count == 1) link_partial(class, s);
    /* An empty span is returned, unless it is the class's last: that would only be taken again. */
    if (s->free_count == blocks_per_span(index) && (class->partial != s || s->next != NULL)) {
      unlink_partial(class, s);
      give_run(s);
    }
  }
  pthread_mutex_unlock(&class->lock);
}

/* ---- Threads ---- */

static unsigned cache_limit(unsigned index) {
  unsigned limit = CACHE_BYTES / class_size[index];
  return limit > CACHE_BLOCKS_MAX ? CACHE_BLOCKS_MAX : limit < 2 ? 2 : limit;
}

/* Returns `count` blocks of the thread's cache to the class. */
static void cache_shrink(cache *c, unsigned index, unsigned count) {
  block *first = c->free[index];
  block *last = first;
  for (unsigned i = 1; i < count; i++) last = last->next;
  c->free[index] = last->next;
  last->next = NULL;
  atomic_store_explicit(&c->count[index], c->count[index] - count, memory_order_relaxed);
  class_give(index, first, count);
}

static void thread_exits(void *argument) {
  cache *c = argument;
  thread.cache = NULL;
  thread.exiting = true;
  for (unsigned i = 0; i < CLASSES; i++) {
    if (c->count[i] > 0) cache_shrink(c, i, c->count[i]);
  }
  pthread_mutex_lock(&caches_lock);
  if (c->prev != NULL) c->prev->next = c->next;
  if (c->next != NULL) c->next->prev = c->prev;
  if (caches == c) caches = c->next;
  pthread_mutex_unlock(&caches_lock);
  free(c);
}

static void init_locks(void) {
  for (unsigned i = 0; i < CLASSES; i++) pthread_mutex_init(&classes[i].lock, NULL);
  pthread_mutex_init(&pages_lock, NULL);
  pthread_mutex_init(&caches_lock, NULL);
}

/* The child has one thread, none of the pages, and locks that other threads may have held. */
static void in_child_of_fork(void) {
  if (secret_base != NULL) lost_base = secret_base;
  secret_pages_forget();
  memset(table, 0, sizeof(table));
  for (unsigned i = 0; i < CLASSES; i++) classes[i].partial = NULL;
  init_locks();
  caches = NULL;
  thread.cache = NULL;
  pthread_setspecific(thread_exit, NULL);
  lowest_free = 0;
  atomic_store(&handed_out, 0);
}

static void init(void) {
  unsigned class = 0;
  for (unsigned grains = 0; grains <= CLASS_MAX / GRAIN; grains++) {
    if (grains * GRAIN > class_size[class]) class++;
    class_of_grains[grains] = (uint8_t)class;
  }
  init_locks();
  pthread_key_create(&thread_exit, thread_exits);
  pthread_atfork(NULL, NULL, in_child_of_fork);
}

/* The thread's cache; NULL when it is exiting or ordinary memory ran out. */
static cache *thread_cache(void) {
  if (thread.cache != NULL || thread.exiting) return thread.cache;
  pthread_once(&once, init);
  cache *c = calloc(1, sizeof(cache));
  if (c == NULL) return NULL;
  if (pthread_setspecific(thread_exit, c) != 0) {
    free(c);
    return NULL;
  }
  pthread_mutex_lock(&caches_lock);
  c->next = caches;
  if (caches != NULL) caches->prev = c;
  caches = c;
  pthread_mutex_unlock(&caches_lock);
  thread.cache = c;
  return c;
}

static bool is_lost(const void *pointer) {
  return lost_base != NULL && (const uint8_t *)pointer >= lost_base &&
         (const uint8_t *)pointer < lost_base + (size_t)SPANS_MAX * SPAN_SIZE;
}

/* ---- The interface ---- */

static void *alloc_large(size_t size) {
  if (size > (size_t)SPANS_MAX * SPAN_SIZE) return NULL;
  size_t count = (size + SPAN_SIZE - 1) / SPAN_SIZE;
  span *s = take_run(count);
  if (s == NULL) return NULL;
  s->class = LARGE;
  atomic_fetch_add_explicit(&handed_out, count * SPAN_SIZE, memory_order_relaxed);
  return secret_base + (size_t)(s - table) * SPAN_SIZE;
}

void *secret_alloc(size_t size) {
  cache *c = thread_cache();
  if (c == NULL) pthread_once(&once, init);
  if (size > CLASS_MAX) return alloc_large(size);
  unsigned index = class_of_grains[(size + GRAIN - 1) / GRAIN];
  block *b = NULL;
  if (c == NULL) {
    if (class_take(index, 1, &b) == 0) return NULL;
  } else {
    if (c->free[index] == NULL) {
      unsigned count = class_take(index, (cache_limit(index) + 1) / 2, &c->free[index]);
      if (count == 0) return NULL;
      atomic_store_explicit(&c->count[index], count, memory_order_relaxed);
    }
    b = c->free[index];
    c->free[index] = b->next;
    atomic_store_explicit(&c->count[index], c->count[index] - 1, memory_order_relaxed);
  }
  b->next = NULL; /* all else is zero already */
  return b;
}

void secret_free(void *pointer) {
  if (pointer == NULL || is_lost(pointer)) return;
  span *s = span_of(pointer);
  if (s->class == LARGE) {
    atomic_fetch_sub_explicit(&handed_out, (size_t)s->run * SPAN_SIZE, memory_order_relaxed);
    give_run(s);
    return;
  }
  unsigned index = s->class;
  wipe(pointer, class_size[index]);
  block *b = pointer;
  cache *c = thread_cache();
  if (c == NULL) {
    class_give(index, b, 1);
    return;
  }
  b->next = c->free[index];
  c->free[index] = b;
  atomic_store_explicit(&c->count[index], c->count[index] + 1, memory_order_relaxed);
  if (c->count[index] > cache_limit(index)) cache_shrink(c, index, c->count[index] / 2);
}

size_t secret_size(const void *pointer) {
  if (pointer == NULL || is_lost(pointer)) return 0;
  const span *s = span_of(pointer);
  return s->class == LARGE ? (size_t)s->run * SPAN_SIZE : class_size[s->class];
}

bool secret_is_lost(const void *pointer) {
  return is_lost(pointer);
}

const char *secret_memory_kind(void) {
  /* Nothing has been allocated yet: an allocation determines the kind. */
  if (secret_pages_kind() == SECRET_NONE) secret_free(secret_alloc(1));
  switch (secret_pages_kind()) {
    case SECRET_MEMFD: return "memfd_secret";
    case SECRET_MLOCK: return "mlock";
    default: return "unlocked";
  }
}

size_t secret_memory_used(void) {
  size_t used = atomic_load_explicit(&handed_out, memory_order_relaxed);
  size_t cached = 0;
  pthread_mutex_lock(&caches_lock);
  for (const cache *c = caches; c != NULL; c = c->next) {
    for (unsigned i = 0; i < CLASSES; i++) cached += (size_t)c->count[i] * class_size[i];
  }
  pthread_mutex_unlock(&caches_lock);
  return used > cached ? used - cached : 0;
}

size_t secret_memory_reserved(void) {
  pthread_mutex_lock(&pages_lock);
  size_t mapped = secret_pages_mapped();
  pthread_mutex_unlock(&pages_lock);
  return mapped * SPAN_SIZE;
}

#endif
