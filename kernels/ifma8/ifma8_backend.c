/* The 8-lane AVX-512 IFMA backend: the table of its kernels, and whether this host can run them.
 *
 * Compiled without AVX-512 flags, so that the question is safe on every host. */
#include "kernels/ifma8/ifma8_cpu.h"
#include "kernels/ifma8/rsa_ifma8.h"
#include "kernels/ifma8/rsa_ifma8_plan.h"
#include "kernels/ifma8/sign_ifma8.h"
#include "kernels/kernels.h"

#if defined(KERNELS_HAVE_IFMA8) || defined(TESTING_HOOKS)
/* The curve kernels keep nothing per key. */
static bool prepare(kernel_key *key) {
  if (key->algorithm > KERNEL_RSA4096) return true;
#ifdef KERNELS_HAVE_IFMA8
  if (cpu_has_ifma8()) rsa_plan_native(key->algorithm); /* measured now, not during the first operation */
#endif
  return rsa_ifma8_prepare(key);
}
static void release(kernel_key *key) {
  rsa_ifma8_release(key);
}
#endif

#ifdef KERNELS_HAVE_IFMA8

static bool usable(void) {
  return cpu_has_ifma8();
}
static void plan(kernel_algorithm algorithm, char text[KERNEL_PLAN_MAX]) {
  text[0] = 0;
  if (algorithm <= KERNEL_RSA4096 && usable()) rsa_plan_describe(rsa_plan_native(algorithm), text);
}

const kernel_backend kernel_ifma8 = {
    .name = "ifma8",
    .description = "8-lane AVX-512 IFMA",
    .usable = usable,
    .run =
        {
            [KERNEL_RSA2048] = rsa2048_private_ifma8,
            [KERNEL_RSA3072] = rsa3072_private_ifma8,
            [KERNEL_RSA4096] = rsa4096_private_ifma8,
            [KERNEL_P256] = p256_sign_ifma8,
            [KERNEL_P384] = p384_sign_ifma8,
            [KERNEL_ED25519] = ed25519_sign_ifma8,
        },
    .prepare = prepare,
    .release = release,
    .plan = plan,
};

#else

static bool usable(void) {
  return false;
}

const kernel_backend kernel_ifma8 = {
    .name = "ifma8",
    .description = "8-lane AVX-512 IFMA (not built: the compiler has no AVX-512 IFMA)",
    .usable = usable,
};

#endif

#ifdef TESTING_HOOKS
static bool portable_usable(void) {
  return true;
}

const kernel_backend kernel_ifma8_portable = {
    .name = "ifma8-portable",
    .description = "the 8-lane kernels in plain C, for tests",
    .usable = portable_usable,
    .run =
        {
            [KERNEL_RSA2048] = rsa2048_private_ifma8_portable,
            [KERNEL_RSA3072] = rsa3072_private_ifma8_portable,
            [KERNEL_RSA4096] = rsa4096_private_ifma8_portable,
            [KERNEL_P256] = p256_sign_ifma8_portable,
            [KERNEL_P384] = p384_sign_ifma8_portable,
            [KERNEL_ED25519] = ed25519_sign_ifma8_portable,
        },
    .prepare = prepare,
    .release = release,
};
#endif
