/* The values that a lone RSA operation keeps per key.
 *
 * Plain C on words of 64 bits, once per key. Secret: p, q and everything made from them. No branch and no address
 * depends on them.
 */
#include <openssl/mem.h>

#include "kernels/ifma8/rsa_ifma8.h"
#include "kernels/ifma8/rsa_lone_ifma8.h"
#include "kernels/secret_memory.h"

enum { REGISTERS_MAX = 10 };

static const uint64_t LIMB_MASK = (UINT64_C(1) << LONE_LIMB_BITS) - 1;

/* x = x / 2^times mod m, for odd m and x < m: an odd x is made even by adding m. */
static void halve_modulo(uint64_t *x, const uint64_t *m, unsigned words, unsigned times) {
  for (unsigned step = 0; step < times; step++) {
    uint64_t odd = -(x[0] & 1), carry = 0;
    for (unsigned i = 0; i < words; i++) {
      unsigned __int128 sum = (unsigned __int128)x[i] + (m[i] & odd) + carry;
      x[i] = (uint64_t)sum;
      carry = (uint64_t)(sum >> 64);
    }
    for (unsigned i = 0; i < words; i++) x[i] = x[i] >> 1 | (i + 1 < words ? x[i + 1] : carry) << 63;
  }
}

/* -1 / N_0 mod 2^(52 registers) for the lowest block N_0 = N mod B, whose highest limb has a bit less: limb i is what
 * makes limb i of 1 + inverse N_0 vanish. */
static void negative_inverse(uint64_t *inverse, const uint64_t *modulus, unsigned words, unsigned registers,
                             uint64_t k0) {
  uint64_t rest[REGISTERS_MAX] = {1};
  for (unsigned i = 0; i < registers; i++) {
    inverse[i] = rest[i] * k0 & LIMB_MASK;
    unsigned __int128 carry = 0;
    for (unsigned j = 0; i + j < registers; j++) {
      uint64_t limb = lone_bits(modulus, words, LONE_LIMB_BITS * j, LONE_LIMB_BITS - (j + 1 == registers));
      carry += (unsigned __int128)inverse[i] * limb + rest[i + j];
      rest[i + j] = (uint64_t)carry & LIMB_MASK;
      carry >>= LONE_LIMB_BITS;
    }
  }
  OPENSSL_cleanse(rest, sizeof rest);
}

static void prepare_modulus(lone_constants to, const uint64_t *modulus, unsigned words, unsigned registers,
                            lone_layout layout, uint64_t k0) {
  const unsigned bits = lone_block_bits(registers);
  to.folded[0] = to.square[0] = 1; /* the rest is 0 */
  halve_modulo(to.folded, modulus, words, bits);
  rsa_double_modulo(to.square, modulus, words, 2 * bits * (LONE_LANES / layout));
  negative_inverse(to.inverse, modulus, words, registers, k0);
}

bool rsa_lone_prepare(kernel_key *key) {
  const rsa_key_numbers *numbers = &key->rsa;
  rsa_ifma8_key *prepared = key->ifma8;
  const unsigned registers = lone_registers(key->algorithm), words = numbers->words / 2;
  uint64_t *kept = secret_alloc(lone_kept_words(registers, words) * sizeof *kept);
  prepared->lone = kept;
  if (kept == NULL) return false;
  const uint64_t *primes[] = {numbers->p, numbers->q};
  for (unsigned half = 0; half < 2; half++) {
    prepare_modulus(lone_constants_of_prime(kept, registers, words, half), primes[half], words, registers, LONE_PAIR,
                    prepared->half[half].k0);
  }
  prepare_modulus(lone_constants_of_n(kept, registers, words), numbers->n, 2 * words, registers, LONE_WHOLE,
                  prepared->n_k0);
  return true;
}
