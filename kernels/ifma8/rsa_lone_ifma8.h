/* What a lone RSA operation keeps per key, and the places of numbers in lanes (montgomery_lone_ifma8.h). */
#ifndef KERNELS_IFMA8_RSA_LONE_IFMA8_H
#define KERNELS_IFMA8_RSA_LONE_IFMA8_H

#include "kernels/key_internal.h"

enum { LONE_LIMB_BITS = 52, LONE_LANES = 8 };

typedef enum lone_layout { LONE_WHOLE = 1, LONE_PAIR = 2 } lone_layout; /* numbers in a register */

/* Registers of a number: 5, 8, 10. */
static inline unsigned lone_registers(kernel_algorithm algorithm) {
  return (unsigned[]){5, 8, 10}[algorithm - KERNEL_RSA2048];
}
static inline unsigned lone_block_bits(unsigned registers) {
  return LONE_LIMB_BITS * registers - 1;
}

/* What is kept of a modulus N: words of 64 bits, and limbs. R and B are those of the layout. */
typedef struct lone_constants {
  uint64_t *folded;  /* 1 / B mod N, as many words as N */
  uint64_t *square;  /* R^2 mod N */
  uint64_t *inverse; /* -1 / (N mod B) mod 2^(52 registers), a limb per register */
} lone_constants;

/* The three moduli of a key, in one array: p and q, secret, then n. `words` are those of a prime. */
static inline lone_constants lone_constants_of_prime(uint64_t *kept, unsigned registers, unsigned words,
                                                     unsigned half) {
  kept += half * (2 * words + registers);
  return (lone_constants){kept, kept + words, kept + 2 * words};
}
static inline size_t lone_secret_words(unsigned registers, unsigned words) {
  return 2 * (2 * words + registers);
}
static inline lone_constants lone_constants_of_n(uint64_t *kept, unsigned registers, unsigned words) {
  kept += lone_secret_words(registers, words);
  return (lone_constants){kept, kept + 2 * words, kept + 4 * words};
}
static inline size_t lone_kept_words(unsigned registers, unsigned words) {
  return lone_secret_words(registers, words) + 4 * words + registers;
}

/* `bits` bits, at most 64, of a number of `count` words from bit `first` on; 0 beyond its end. */
static inline uint64_t lone_bits(const uint64_t *words, unsigned count, unsigned first, unsigned bits) {
  unsigned word = first / 64, shift = first % 64;
  uint64_t low = word < count ? words[word] >> shift : 0;
  /* In two steps, because a shift by 64 is undefined. */
  uint64_t high = word + 1 < count ? words[word + 1] << 1 << (63 - shift) : 0;
  return (low | high) & (UINT64_MAX >> (64 - bits));
}

/* Puts the bits from `first` on of a number, as many as the layout has place for, into its lanes: number `index` of a
 * pair. The lanes of the other are not touched. */
static inline void lone_spread(uint64_t *to, lone_layout layout, unsigned index, unsigned registers,
                               const uint64_t *words, unsigned count, unsigned first) {
  unsigned block_bits = lone_block_bits(registers);
  for (unsigned block = 0; block < LONE_LANES / layout; block++) {
    for (unsigned r = 0; r < registers; r++) {
      unsigned bits = r + 1 < registers ? LONE_LIMB_BITS : LONE_LIMB_BITS - 1;
      to[LONE_LANES * r + layout * block + index] =
          lone_bits(words, count, first + block * block_bits + r * LONE_LIMB_BITS, bits);
    }
  }
}

/* key->ifma8->lone; false when secret memory ran out. */
bool rsa_lone_prepare(kernel_key *key);

#endif
