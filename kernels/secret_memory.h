/* Memory for private keys: locked, left out of core dumps, wiped on release.
 *
 * Backed by memfd_secret(2) if the kernel has it (the pages are removed even from the kernel's own map), otherwise by
 * anonymous memory with mlock(2), MADV_DONTDUMP and MADV_DONTFORK. BoringSSL's allocations come from here too, by its
 * OPENSSL_memory_alloc hooks, so that none of its copies of a key is outside.
 */
#ifndef KERNELS_SECRET_MEMORY_H
#define KERNELS_SECRET_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Returns zeroed memory, aligned to 64 bytes (to a page for sizes of a page and more). NULL when the limit of locked
 * memory is reached.
 */
void *secret_alloc(size_t size);
void secret_free(void *pointer); /* wipes; NULL is allowed */
size_t secret_size(const void *pointer);
/* Whether the pointer was allocated before the fork that made this process: children do not have the pages, so they can
 * neither read nor free it (secret_free ignores it). A child that is to sign must exec first. */
bool secret_is_lost(const void *pointer);

/* "memfd_secret", "mlock", or "unlocked" when neither was allowed (RLIMIT_MEMLOCK): in the last case the daemon reports
 * it and, unless configured otherwise, refuses to start. */
const char *secret_memory_kind(void);
size_t secret_memory_used(void);
size_t secret_memory_reserved(void);

#ifdef __cplusplus
}
#endif
#endif
