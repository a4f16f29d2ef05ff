/* Whether X25519 on AVX-512 IFMA can run here. Compiled without AVX-512 flags, so that asking is safe everywhere. */
#include "kernels/x25519.h"

#ifdef KERNELS_HAVE_IFMA8

bool x25519_ifma_usable(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("bmi2");
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
