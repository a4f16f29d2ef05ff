/* The elliptic-curve kernels of the 8-lane backend, each in a native and, for tests, a portable build (vec.h). */
#ifndef KERNELS_IFMA8_SIGN_IFMA8_H
#define KERNELS_IFMA8_SIGN_IFMA8_H

#include "kernels/kernels.h"

kernel_run p256_sign_ifma8, p384_sign_ifma8, ed25519_sign_ifma8;
#ifdef TESTING_HOOKS
kernel_run p256_sign_ifma8_portable, p384_sign_ifma8_portable, ed25519_sign_ifma8_portable;
#endif

#endif
