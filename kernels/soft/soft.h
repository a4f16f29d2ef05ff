/* The operations of the software backend. */
#ifndef KERNELS_SOFT_H
#define KERNELS_SOFT_H

#include "kernels/kernels.h"

kernel_run rsa_soft_private;
kernel_run ecdsa_soft_sign;
kernel_run ed25519_soft_sign;

#endif
