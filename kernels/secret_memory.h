/* Memory for private keys: locked, left out of core dumps, wiped on release.
 *
 * Backed by memfd_secret(2) where the kernel has it (the pages leave even the kernel's own map), else by anonymous
 * memory with mlock(2), MADV_DONTDUMP and MADV_DONTFORK. BoringSSL's allocations go here too, by its
 * OPENSSL_memory_alloc hooks, so that no copy of a key it makes is outside.
 */
#ifndef KERNELS_SECRET_MEMORY_H
#define KERNELS_SECRET_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Zeroed, aligned to 64 bytes (sizes of a page and more: to a page). NULL when the limit of locked memory is reached.
 */
void *secret_alloc(size_t size);
void secret_free(void *pointer); /* wipes; NULL is allowed */
size_t secret_size(const void *pointer);
/* Whether the pointer is from before a fork of which this process is the child: children do not have the pages, so they
 * can neither read nor free it (secret_free ignores it). A process that forks and means to sign must exec first. */
bool secret_is_lost(const void *pointer);

/* "memfd_secret", "mlock", or "unlocked" when neither was allowed (RLIMIT_MEMLOCK): the daemon says so and, unless
 * configured otherwise, refuses to start. */
const char *secret_memory_kind(void);
size_t secret_memory_used(void);
size_t secret_memory_reserved(void);

#ifdef __cplusplus
}
#endif
#endif
