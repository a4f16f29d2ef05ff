/* The values that the 8-lane RSA kernels keep per key: Montgomery constants of p, q and n, in limbs of 52 bits.
 *
 *   2^k x mod m by doubling: x <- 2 x - m if that is not negative. k steps; k = 52 limbs gives R x mod m.
 *
 * Plain C on words of 64 bits; it runs once per key and takes about 0.3 ms for RSA-2048, 2 ms for RSA-4096; those of
 * lone operations (rsa_lone_ifma8_key.c) as much again.
 *
 * Secret: p, q, the exponents and everything made from them. No branch and no address depends on them: the subtraction
 * is always computed and chosen by a mask.
 */
#include <openssl/mem.h>
#include <string.h>

#include "kernels/ifma8/rsa_ifma8.h"
#include "kernels/ifma8/rsa_lone_ifma8.h"
#include "kernels/secret_memory.h"

enum { LIMB_BITS = 52 };
static const uint64_t LIMB_MASK = (UINT64_C(1) << LIMB_BITS) - 1;

unsigned rsa_ifma8_half_limbs(kernel_algorithm algorithm) {
  return 20 + 10 * (unsigned)(algorithm - KERNEL_RSA2048);
}

static void limbs_of_words(uint64_t *limbs, unsigned limb_count, const uint64_t *words, unsigned word_count) {
  for (unsigned i = 0; i < limb_count; i++) {
    unsigned bit = LIMB_BITS * i, word = bit / 64, shift = bit % 64;
    uint64_t low = word < word_count ? words[word] >> shift : 0;
    /* In two steps, because a shift by 64 is undefined. */
    uint64_t high = word + 1 < word_count ? (words[word + 1] << 1) << (63 - shift) : 0;
    limbs[i] = (low | high) & LIMB_MASK;
  }
}

void rsa_double_modulo(uint64_t *x, const uint64_t *m, unsigned words, unsigned times) {
  uint64_t doubled[RSA_WORDS_MAX], reduced[RSA_WORDS_MAX];
  for (unsigned step = 0; step < times; step++) {
    uint64_t carry = 0, borrow = 0;
    for (unsigned i = 0; i < words; i++) {
      doubled[i] = x[i] << 1 | carry;
      carry = x[i] >> 63;
      unsigned __int128 difference = (unsigned __int128)doubled[i] - m[i] - borrow;
      reduced[i] = (uint64_t)difference;
      borrow = (uint64_t)(difference >> 64) & 1;
    }
    /* 2 x >= m unless the subtraction borrowed more than the bit that was carried out. */
    uint64_t keep = -(borrow & (carry ^ 1));
    for (unsigned i = 0; i < words; i++) x[i] = (doubled[i] & keep) | (reduced[i] & ~keep);
  }
  OPENSSL_cleanse(doubled, sizeof doubled);
  OPENSSL_cleanse(reduced, sizeof reduced);
}

/* -1 / odd mod 2^52, by Newton's iteration: each step doubles the number of correct bits. */
static uint64_t negative_inverse(uint64_t odd) {
  uint64_t inverse = odd; /* correct mod 2^3 */
  for (int i = 0; i < 5; i++) inverse *= 2 - odd * inverse;
  return -inverse & LIMB_MASK;
}

static void prepare_half(rsa_ifma8_half *half, const uint64_t *prime, const uint64_t *exponent, unsigned limbs,
                         unsigned words) {
  uint64_t power[RSA_HALF_WORDS_MAX] = {1};
  limbs_of_words(half->prime, limbs, prime, words);
  memcpy(half->exponent, exponent, words * sizeof *exponent);
  half->k0 = negative_inverse(prime[0]);
  rsa_double_modulo(power, prime, words, LIMB_BITS * limbs);
  limbs_of_words(half->one, limbs, power, words);
  rsa_double_modulo(power, prime, words, 2 * LIMB_BITS * limbs);
  limbs_of_words(half->cube, limbs, power, words);
  OPENSSL_cleanse(power, sizeof power);
}

bool rsa_ifma8_prepare(kernel_key *key) {
  const rsa_key_numbers *numbers = &key->rsa;
  rsa_ifma8_key *prepared = secret_alloc(sizeof *prepared);
  if (prepared == NULL) return false;
  unsigned limbs = rsa_ifma8_half_limbs(key->algorithm), words = numbers->words / 2;

  prepare_half(&prepared->half[0], numbers->p, numbers->dp, limbs, words);
  prepare_half(&prepared->half[1], numbers->q, numbers->dq, limbs, words);

  uint64_t qinv[RSA_HALF_WORDS_MAX];
  memcpy(qinv, numbers->qinv, sizeof qinv);
  rsa_double_modulo(qinv, numbers->p, words, LIMB_BITS * limbs);
  limbs_of_words(prepared->qinv, limbs, qinv, words);
  OPENSSL_cleanse(qinv, sizeof qinv);

  uint64_t power[RSA_WORDS_MAX] = {1};
  limbs_of_words(prepared->n, 2 * limbs, numbers->n, numbers->words);
  rsa_double_modulo(power, numbers->n, numbers->words, 2 * LIMB_BITS * 2 * limbs);
  limbs_of_words(prepared->n_square, 2 * limbs, power, numbers->words);
  prepared->n_k0 = negative_inverse(numbers->n[0]);
  prepared->e = numbers->e;

  key->ifma8 = prepared;
  return rsa_lone_prepare(key);
}

void rsa_ifma8_release(kernel_key *key) {
  rsa_ifma8_key *prepared = key->ifma8;
  if (prepared != NULL) secret_free(prepared->lone);
  secret_free(prepared);
  key->ifma8 = NULL;
}
