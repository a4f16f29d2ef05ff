/* secret_memory.h on malloc, for builds in which a sanitizer or valgrind must see each allocation. The memory is not
 * locked, and is reported as such: a daemon built this way refuses to start unless configured to. */
#include "kernels/secret_memory.h"

#ifdef SECRET_MEMORY_MALLOC

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_size_t used;

void *secret_alloc(size_t size) {
  void *pointer;
  if (size == 0) size = 1;
  if (posix_memalign(&pointer, size >= 4096 ? 4096 : 64, size) != 0) return NULL;
  memset(pointer, 0, size);
  atomic_fetch_add(&used, malloc_usable_size(pointer));
  return pointer;
}

void secret_free(void *pointer) {
  if (pointer == NULL) return;
  size_t size = malloc_usable_size(pointer);
  atomic_fetch_sub(&used, size);
  memset(pointer, 0, size);
  __asm__ __volatile__("" : : "r"(pointer) : "memory");
  free(pointer);
}

size_t secret_size(const void *pointer) {
  return malloc_usable_size((void *)pointer);
}
bool secret_is_lost(const void *pointer) {
  return false;
}
const char *secret_memory_kind(void) {
  return "unlocked";
}
size_t secret_memory_used(void) {
  return atomic_load(&used);
}
size_t secret_memory_reserved(void) {
  return atomic_load(&used);
}

#endif
