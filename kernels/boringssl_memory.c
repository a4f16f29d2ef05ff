/* BoringSSL's heap is secret memory: each copy it makes of a key, and each temporary of an operation, is locked and
 * wiped.
 *
 * BoringSSL refers to these three names weakly and calls them for each allocation, from whatever thread and under
 * whatever lock; they may not call back into it. */
#include <stddef.h>

#include "kernels/secret_memory.h"

void *OPENSSL_memory_alloc(size_t size);
void OPENSSL_memory_free(void *pointer);
size_t OPENSSL_memory_get_size(void *pointer);

void *OPENSSL_memory_alloc(size_t size) {
  return secret_alloc(size);
}
void OPENSSL_memory_free(void *pointer) {
  secret_free(pointer);
}
size_t OPENSSL_memory_get_size(void *pointer) {
  return secret_size(pointer);
}
