/* BoringSSL's heap in secret memory. */
#ifndef KERNELS_BORINGSSL_MEMORY_H
#define KERNELS_BORINGSSL_MEMORY_H

#include <stdbool.h>

/* Whether BoringSSL's allocations come from secret memory. Keys are not read otherwise.
 *
 * Calling it also links the hooks: a linker takes no object out of an archive for BoringSSL's weak references alone, so
 * the object with the hooks must be referenced by name. */
bool boringssl_memory_is_secret(void);

#endif
