/* Whether this host can run code for AVX-512 IFMA. For files compiled without AVX-512 flags, so that the question is
 * safe on every host. */
#ifndef KERNELS_IFMA8_IFMA8_CPU_H
#define KERNELS_IFMA8_IFMA8_CPU_H

#include <stdbool.h>

/* gcc's cpu model asks CPUID for the instructions and XGETBV for the operating system's saving of the registers. The
 * list is that of `ifma8_flags` in ifma8.cmake. */
static inline bool cpu_has_ifma8(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("bmi2");
}

#endif
