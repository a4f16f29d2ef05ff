/* The software backend: BoringSSL, one lane after the other. It runs everywhere, and redoes lanes that a vector kernel
 * got wrong. */
#include "kernels/soft/soft.h"

static bool usable(void) {
  return true;
}

const kernel_backend kernel_software = {
    .name = "software",
    .description = "BoringSSL, one operation at a time",
    .usable = usable,
    .run =
        {
            [KERNEL_RSA2048] = rsa_soft_private,
            [KERNEL_RSA3072] = rsa_soft_private,
            [KERNEL_RSA4096] = rsa_soft_private,
            [KERNEL_P256] = ecdsa_soft_sign,
            [KERNEL_P384] = ecdsa_soft_sign,
            [KERNEL_ED25519] = ed25519_soft_sign,
        },
};
