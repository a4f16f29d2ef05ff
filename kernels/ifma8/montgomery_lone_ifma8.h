/* Montgomery arithmetic modulo one number (or two side by side) spread over the lanes of 512-bit registers.
 *
 *   multiply(a, b) = a b / R mod N
 *
 * Layout. A number takes s registers: 5, 8 or 10. It is cut into blocks of w = 52 s - 1 bits, one per lane, B = 2^w;
 * a block has s limbs of 52 bits (the highest 51), limb r in register r:
 *
 *   "pair"    two numbers of 4 blocks, R = B^4     lanes 0 2 4 6 the first number, 1 3 5 7 the second
 *   "whole"   one number of 8 blocks,  R = B^8     lanes 0 to 7
 *
 * with the lowest block first.
 *
 *   s    pair, for two primes of     whole, for a modulus of
 *   5    1024 bits (R has 1036)      2048 (2072)
 *   8    1536      (1660)            3072 (3320)
 *   10   2048      (2076)            4096 (4152)
 *
 * The highest limb of a block has a bit to spare. So a carry that leaves a block for the next one never travels
 * through more than one block, and no carry ever has to cross all lanes.
 *
 * Product. One limb of b, in all lanes, times the s registers of a gives columns of weight 2^(52 k), k = 0 to 2 s - 1,
 * in every lane. Columns of s and above belong to the block above, where 2^(52 s) = 2 B counts twice.
 *
 * Reduction, a block at a time, so that few things wait for each other. With Y, the lowest block of T, carried to s
 * limbs of 52 bits (Y < 2 B):
 *
 *   all blocks of b but the last:  T <- (T - Y) / B + Y M + A b_next       M = 1 / B mod N = (K N + 1) / B,  K < B
 *   the last block:                T <- (T + q N) / B                      q = -Y / N_0 mod 2^(52 s)
 *
 * N_0 is the lowest block of N. The first kind needs no quotient: Y is the factor as it stands. But it adds Y K N / B <
 * 2 B N, which is a block too much, so the last block is done by N itself. There T + q N vanishes in the lowest block,
 * so of that block only its highest column is looked at: it rounds up to a multiple of 2^52, as in montgomery.py.
 *
 * Bounds. For a, b < c N:
 *
 *   T / R < c^2 N^2 / R + (2 B) (B N) (B^(g-2) + ... + 1) / B^g + (2 B) N B^(g-1) / B^g,   g = 4 or 8 blocks
 *         < N (c^2 N / R + 4 + 2^-200) .
 *
 * N / R is below 2^-11, so c = 4.01 satisfies c^2 2^-11 + 4 < c: results of numbers below 4.01 N are below 4.01 N,
 * without a final subtraction, and below R, so that no carry leaves the highest block. If b < N, any a < R gives less
 * than 5 N. Sums are as good as factors: for a, b < 9.01 N (5 N + 4.01 N) the result is below 4.04 N, and what is made
 * of that is below 4.01 N again.
 *
 * Columns start at 0 and grow by at most 2 (2 s - 1) halves of products per row of blocks, and are doubled and added
 * once per block: below 2^62, as the generator (kernels/generate/lone.py) proves while it writes the code. A result's
 * columns are carried once in parallel (limbs are then below 2^52 + 2^11) and once from limb to limb, which ends in the
 * spare bit.
 *
 * A stored number's limbs count modulo 2^52: bits above, which have been carried already, are left in place, as
 * multiplications do not see them. The highest limb of a block is below 2^51 + 2^12 without them.
 *
 * Secret: every limb. Public: sizes and addresses. Nothing branches on a secret.
 */
#ifndef KERNELS_IFMA8_MONTGOMERY_LONE_IFMA8_H
#define KERNELS_IFMA8_MONTGOMERY_LONE_IFMA8_H

#include "kernels/ifma8/vec_lanes.h"

enum { LONE_REGISTERS_MAX = 10 };

/* The registers of a modulus, each `s` vecs. */
typedef struct lone_modulus {
  const vec *modulus;
  const vec *folded;  /* M = 1 / B mod N */
  const vec *inverse; /* -1 / N_0 mod 2^(52 s), limbs in the lanes of the lowest block */
  vec *scratch;       /* 2 s vecs for the multiplications: secret, in the workspace */
} lone_modulus;

/* result may be a or b. Nothing is read after the first store. */
typedef void lone_multiply(vec *result, const vec *a, const vec *b, const lone_modulus *m);
lone_multiply VEC_NAME(lone_multiply_pair_5), VEC_NAME(lone_multiply_pair_8), VEC_NAME(lone_multiply_pair_10);
lone_multiply VEC_NAME(lone_multiply_whole_5), VEC_NAME(lone_multiply_whole_8), VEC_NAME(lone_multiply_whole_10);

#endif
