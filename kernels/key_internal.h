/* The layout of a private key in secret memory. For key.c and the backends only.
 *
 * Numbers are arrays of 64-bit words, the least significant first ("words" below), each array as long as the largest
 * size needs and zero above the size of this key; secret numbers therefore never reveal their length. Words beyond
 * `words` (modulus), `words / 2` (CRT parts) or 4 / 6 (curves) are zero.
 *
 * A key is written once, by key.c, before it is shared, and is constant afterwards, so it needs no lock.
 */
#ifndef KERNELS_KEY_INTERNAL_H
#define KERNELS_KEY_INTERNAL_H

#include <openssl/base.h>
#include <stdatomic.h>

#include "kernels/key.h"

enum {
  RSA_WORDS_MAX = 64,      /* 4096 bits */
  RSA_HALF_WORDS_MAX = 32, /* one prime */
  EC_WORDS_MAX = 6,        /* P-384; P-256 uses 4 */
  SPKI_MAX = 576,          /* DER SubjectPublicKeyInfo; RSA-4096 takes 550 */
};

typedef struct rsa_key_numbers {
  /* public */
  uint32_t size;  /* bytes of the modulus: 256, 384, 512 */
  uint32_t words; /* 64-bit words of the modulus: 32, 48, 64 */
  uint64_t e;     /* odd, 3 <= e < 2^33 */
  uint64_t n[RSA_WORDS_MAX];
  uint8_t n_bytes[RSA_WORDS_MAX * 8]; /* n again, big-endian, `size` bytes: to compare inputs with */
  /* secret. p and q have exactly half the bits of n each; which of them is larger is not known. */
  uint64_t p[RSA_HALF_WORDS_MAX];
  uint64_t q[RSA_HALF_WORDS_MAX];
  uint64_t dp[RSA_HALF_WORDS_MAX];   /* d mod (p - 1) */
  uint64_t dq[RSA_HALF_WORDS_MAX];   /* d mod (q - 1) */
  uint64_t qinv[RSA_HALF_WORDS_MAX]; /* q^-1 mod p */
  RSA *rsa;                          /* BoringSSL's, for the software backend; its memory is secret memory too */
} rsa_key_numbers;

typedef struct ec_key_numbers {
  uint32_t words;           /* 4 or 6; the same for order and field */
  uint64_t x[EC_WORDS_MAX]; /* the public point d G, affine, plain (not Montgomery) */
  uint64_t y[EC_WORDS_MAX];
  uint64_t d[EC_WORDS_MAX];          /* secret; 1 <= d < order */
  uint8_t d_bytes[EC_WORDS_MAX * 8]; /* secret; d again, big-endian, words * 8 bytes: for the nonce derivation */
  EC_KEY *ec;                        /* BoringSSL's */
} ec_key_numbers;

typedef struct ed25519_key_numbers {
  uint8_t seed_public[64]; /* secret seed, then public key: BoringSSL's form */
  uint8_t scalar[32];      /* secret; clamped, little-endian: first half of SHA-512(seed) */
  uint8_t prefix[32];      /* secret; second half of SHA-512(seed) */
} ed25519_key_numbers;

struct kernel_key {
  kernel_algorithm algorithm;
  atomic_uint references;
  uint8_t id[KERNEL_KEY_ID_SIZE];
  uint32_t spki_size;
  uint8_t spki[SPKI_MAX];
  union {
    rsa_key_numbers rsa;
    ec_key_numbers ec;
    ed25519_key_numbers ed25519;
  };
  /* What the vector backend keeps per key (Montgomery constants, digits of the exponents): made by its `prepare`
   * with secret_alloc, freed by its `release`, both in kernels.h. NULL if the backend has neither. */
  void *ifma8;
};

#endif
