/* RSA on lanes: the entry points, and the values kept per key. */
#ifndef KERNELS_IFMA8_RSA_IFMA8_H
#define KERNELS_IFMA8_RSA_IFMA8_H

#include "kernels/ifma8/montgomery_products.h"
#include "kernels/key_internal.h"

enum {
  RSA_HALF_LIMBS_MAX = 40, /* 2048 bits in limbs of 52 bits */
  RSA_LIMBS_MAX = 80,
};

/* Arithmetic modulo one prime; R = 2^(52 limbs), limbs of 52 bits. All secret. */
typedef struct rsa_ifma8_half {
  uint64_t prime[RSA_HALF_LIMBS_MAX];
  uint64_t one[RSA_HALF_LIMBS_MAX];      /* R mod prime */
  uint64_t cube[RSA_HALF_LIMBS_MAX];     /* R^3 mod prime */
  uint64_t exponent[RSA_HALF_WORDS_MAX]; /* d mod (prime - 1), words of 64 bits */
  uint64_t k0;                           /* -1 / prime mod 2^52 */
} rsa_ifma8_half;

typedef struct rsa_ifma8_key {
  rsa_ifma8_half half[2];            /* p, q */
  uint64_t qinv[RSA_HALF_LIMBS_MAX]; /* R / q mod p */
  /* public */
  uint64_t n[RSA_LIMBS_MAX];
  uint64_t n_square[RSA_LIMBS_MAX]; /* R^2 mod n, with the R of n */
  uint64_t n_k0;
  uint64_t e;
  uint64_t *lone; /* for lone operations, in secret memory of its own: rsa_lone_ifma8.h */
} rsa_ifma8_key;

/* Limbs of half a modulus: 20, 30, 40. The modulus has twice as many. */
unsigned rsa_ifma8_half_limbs(kernel_algorithm algorithm);

/* x = 2^times x mod m, x < m. */
void rsa_double_modulo(uint64_t *x, const uint64_t *m, unsigned words, unsigned times);

/* key->ifma8, for RSA keys: computed from key->rsa when the key is loaded. False when secret memory ran out. */
bool rsa_ifma8_prepare(kernel_key *key);
void rsa_ifma8_release(kernel_key *key);

/* rsa_ifma8_private.c, once for each number of lanes: `count` operations of the batch `lanes`, from index `first` on;
 * up to as many as there are lanes. */
typedef void rsa_run(kernel_algorithm algorithm, montgomery_products products, kernel_lane lanes[], size_t first,
                     size_t count, kernel_workspace *workspace);
rsa_run rsa_private_ifma8, rsa_private_ifma4;
#ifdef TESTING_HOOKS
rsa_run rsa_private_ifma8_portable, rsa_private_ifma4_portable;
#endif
/* rsa_lone_ifma8_private.c: one operation after the other, each number spread over the lanes. */
rsa_run rsa_lone_private_ifma8;
#ifdef TESTING_HOOKS
rsa_run rsa_lone_private_ifma8_portable;
#endif

/* rsa_ifma8_lanes.c: whole batches. */
kernel_run rsa2048_private_ifma8, rsa3072_private_ifma8, rsa4096_private_ifma8;
#ifdef TESTING_HOOKS
kernel_run rsa2048_private_ifma8_portable, rsa3072_private_ifma8_portable, rsa4096_private_ifma8_portable;
#endif

#endif
