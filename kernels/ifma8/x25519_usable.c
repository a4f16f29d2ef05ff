/* Whether X25519 on AVX-512 IFMA can run here. Compiled without AVX-512 flags, so that the question is safe on every
 * host. */
#include "kernels/ifma8/ifma8_cpu.h"
#include "kernels/x25519.h"

#ifdef KERNELS_HAVE_IFMA8

bool x25519_ifma_usable(void) {
  return cpu_has_ifma8();
}

#else

bool x25519_ifma_usable(void) {
  return false;
}

uint8_t x25519_public_ifma8(uint8_t public_keys[X25519_LANES][X25519_BYTES],
                            const uint8_t private_keys[X25519_LANES][X25519_BYTES]) {
  (void)public_keys, (void)private_keys;
  return 0;
}

bool x25519_shared_ifma4(uint8_t shared[X25519_BYTES], const uint8_t private_key[X25519_BYTES],
                         const uint8_t point[X25519_BYTES]) {
  (void)shared, (void)private_key, (void)point;
  return false;
}

#endif
