/* BoringSSL's heap is secret memory: each copy it makes of a key, and each temporary of an operation, is locked and
 * wiped.
 *
 * BoringSSL refers to these three names weakly and calls them for each allocation, from whatever thread and under
 * whatever lock; they may not call back into it. */
#include "kernels/boringssl_memory.h"

#include <openssl/mem.h>
#include <stdatomic.h>
#include <stddef.h>

#include "kernels/secret_memory.h"

void *OPENSSL_memory_alloc(size_t size);
void OPENSSL_memory_free(void *pointer);
size_t OPENSSL_memory_get_size(void *pointer);

static atomic_bool called;

void *OPENSSL_memory_alloc(size_t size) {
  if (!atomic_load_explicit(&called, memory_order_relaxed)) atomic_store_explicit(&called, true, memory_order_relaxed);
  return secret_alloc(size);
}

void OPENSSL_memory_free(void *pointer) {
  secret_free(pointer);
}
size_t OPENSSL_memory_get_size(void *pointer) {
  return secret_size(pointer);
}

bool boringssl_memory_is_secret(void) {
  OPENSSL_free(OPENSSL_malloc(1));
  return atomic_load_explicit(&called, memory_order_relaxed);
}
