/* See ecdsa_nonce.h for the derivation. The reduction is Barrett's (Handbook of Applied Cryptography, 14.42) with
 * 64-bit words: for x < 2^512 <= b^2k it needs at most two subtractions at the end, which are always made, by mask. */
#include "kernels/ecdsa_nonce.h"

#include <openssl/mem.h>
#include <openssl/rand.h>
#include <openssl/sha2.h>
#include <string.h>

#include "kernels/key_internal.h"
#include "kernels/testing_hooks.h"

enum { WORDS_MAX = EC_WORDS_MAX, WIDE_WORDS = 2 * WORDS_MAX };

typedef unsigned __int128 uint128;

typedef struct scalar_field {
  unsigned words;             /* k */
  uint64_t m[WORDS_MAX];      /* order - 1 */
  uint64_t mu[WORDS_MAX + 1]; /* floor(b^2k / m) */
} scalar_field;

static const scalar_field p256 = {
    .words = 4,
    .m = {0xf3b9cac2fc632550, 0xbce6faada7179e84, 0xffffffffffffffff, 0xffffffff00000000},
    .mu = {0x012ffd85eedf9bff, 0x43190552df1a6c21, 0xfffffffeffffffff, 0x00000000ffffffff, 1},
};

static const scalar_field p384 = {
    .words = 6,
    .m = {0xecec196accc52972, 0x581a0db248b0a77a, 0xc7634d81f4372ddf, 0xffffffffffffffff, 0xffffffffffffffff,
          0xffffffffffffffff},
    .mu = {0x1313e695333ad68e, 0xa7e5f24db74f5885, 0x389cb27e0bc8d220, 0, 0, 0, 1},
};

/* product = a * b, a of `an` and b of `bn` words, in an + bn words. */
static void multiply(uint64_t *product, const uint64_t *a, unsigned an, const uint64_t *b, unsigned bn) {
  memset(product, 0, (an + bn) * sizeof(uint64_t));
  for (unsigned i = 0; i < an; i++) {
    uint64_t carry = 0;
    for (unsigned j = 0; j < bn; j++) {
      uint128 t = (uint128)a[i] * b[j] + product[i + j] + carry;
      product[i + j] = (uint64_t)t;
      carry = (uint64_t)(t >> 64);
    }
    product[i + bn] = carry;
  }
}

/* a -= b over n words; the borrow. */
static uint64_t subtract(uint64_t *a, const uint64_t *b, unsigned n) {
  uint64_t borrow = 0;
  for (unsigned i = 0; i < n; i++) {
    uint128 t = (uint128)a[i] - b[i] - borrow;
    a[i] = (uint64_t)t;
    borrow = (uint64_t)(t >> 64) & 1;
  }
  return borrow;
}

/* r = x mod m, for x of 2k words. */
static void reduce(const scalar_field *field, uint64_t *r, const uint64_t *x) {
  unsigned k = field->words;
  uint64_t estimate[2 * WORDS_MAX + 2], product[2 * WORDS_MAX + 2], m[WORDS_MAX + 1] = {0}, rest[WORDS_MAX + 1];
  memcpy(m, field->m, k * sizeof(uint64_t));
  multiply(estimate, x + k - 1, k + 1, field->mu, k + 1);
  multiply(product, estimate + k + 1, k + 1, m, k + 1);
  memcpy(rest, x, (k + 1) * sizeof(uint64_t));
  subtract(rest, product, k + 1); /* modulo b^(k+1) on purpose: the true difference is in [0, 3m) */
  for (int round = 0; round < 2; round++) {
    uint64_t less[WORDS_MAX + 1];
    memcpy(less, rest, sizeof(rest));
    uint64_t keep = 0 - subtract(less, m, k + 1);
    for (unsigned i = 0; i <= k; i++) rest[i] = (rest[i] & keep) | (less[i] & ~keep);
  }
  memcpy(r, rest, k * sizeof(uint64_t));
}

/* k = (wide mod m) + 1 cannot carry out: m + 1 is the order. */
static void add_one(uint64_t *k, unsigned words) {
  uint64_t carry = 1;
  for (unsigned i = 0; i < words; i++) {
    k[i] += carry;
    carry &= (uint64_t)(k[i] == 0);
  }
}

static uint64_t word_big_endian(const uint8_t *bytes) {
  uint64_t word;
  memcpy(&word, bytes, sizeof(word));
  return __builtin_bswap64(word);
}

static void nonce_from_wide(const scalar_field *field, const uint8_t wide[SHA512_DIGEST_LENGTH], uint64_t *k) {
  uint64_t x[WIDE_WORDS] = {0};
  for (unsigned i = 0; i < 8; i++) x[i] = word_big_endian(wide + 56 - 8 * i);
  reduce(field, k, x);
  add_one(k, field->words);
  OPENSSL_cleanse(x, sizeof(x));
}

void ecdsa_nonce_fresh(uint8_t fresh[ECDSA_NONCE_FRESH]) {
  RAND_bytes(fresh, ECDSA_NONCE_FRESH); /* aborts rather than fails */
}

void ecdsa_nonce_from_wide(kernel_algorithm algorithm, size_t lane, const uint8_t wide[ECDSA_NONCE_WIDE],
                           uint64_t k[]) {
  const scalar_field *field = algorithm == KERNEL_P256 ? &p256 : &p384;
  nonce_from_wide(field, wide, k);
#ifdef TESTING_HOOKS
  const uint8_t *known = kernel_known_nonce(lane, field->words * 8);
  for (unsigned j = 0; known != NULL && j < field->words; j++) {
    k[j] = word_big_endian(known + (field->words - 1 - j) * 8);
  }
#endif
}

#ifdef TESTING_HOOKS
void ecdsa_nonces_reference(kernel_algorithm algorithm, const kernel_lane lanes[], size_t count,
                            const uint8_t fresh[ECDSA_NONCE_FRESH], uint64_t k[]) {
  unsigned words = (algorithm == KERNEL_P256 ? p256 : p384).words;
  for (size_t i = 0; i < count; i++) {
    SHA512_CTX hash;
    uint8_t wide[SHA512_DIGEST_LENGTH], index = (uint8_t)i;
    SHA512_Init(&hash);
    SHA512_Update(&hash, lanes[i].key->ec.d_bytes, words * 8);
    SHA512_Update(&hash, fresh, ECDSA_NONCE_FRESH);
    SHA512_Update(&hash, lanes[i].input, words * 8);
    SHA512_Update(&hash, &index, 1);
    SHA512_Final(wide, &hash);
    ecdsa_nonce_from_wide(algorithm, i, wide, k + i * words);
  }
}

void ecdsa_nonces_p256(const kernel_lane lanes[], size_t count, uint64_t k[][4]) {
  uint8_t fresh[ECDSA_NONCE_FRESH];
  ecdsa_nonce_fresh(fresh);
  ecdsa_nonces_reference(KERNEL_P256, lanes, count, fresh, k[0]);
}
void ecdsa_nonces_p384(const kernel_lane lanes[], size_t count, uint64_t k[][6]) {
  uint8_t fresh[ECDSA_NONCE_FRESH];
  ecdsa_nonce_fresh(fresh);
  ecdsa_nonces_reference(KERNEL_P384, lanes, count, fresh, k[0]);
}

void ecdsa_nonce_from_wide_for_testing(kernel_algorithm algorithm, const uint8_t wide[64], uint64_t k[6]) {
  nonce_from_wide(algorithm == KERNEL_P256 ? &p256 : &p384, wide, k);
}
#endif
