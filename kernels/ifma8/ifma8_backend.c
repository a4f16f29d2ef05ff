/* The 8-lane AVX-512 IFMA backend: which kernels there are. */
#include "kernels/kernels.h"

static bool usable(void) {
  return false;
}

const kernel_backend kernel_ifma8 = {
    .name = "ifma8",
    .description = "8-lane AVX-512 IFMA",
    .usable = usable,
};
