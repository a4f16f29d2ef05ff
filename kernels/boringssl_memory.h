/* BoringSSL's heap in secret memory. */
#ifndef KERNELS_BORINGSSL_MEMORY_H
#define KERNELS_BORINGSSL_MEMORY_H

#include <stdbool.h>

/* Whether BoringSSL's allocations do come from secret memory. Keys are not read unless they do.
 *
 * It also makes it so: a linker takes no object out of an archive for the sake of BoringSSL's weak references alone, so
 * somebody must refer to the object with the hooks by name. */
bool boringssl_memory_is_secret(void);

#endif
