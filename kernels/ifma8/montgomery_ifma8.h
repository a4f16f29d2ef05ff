/* Montgomery arithmetic modulo eight numbers at once, one per lane; the sizes that RSA needs.
 *
 *   multiply(a, b) = a b / R mod N,   R = 2^(52 limbs),   a, b < 2 N  ->  result < 2 N
 *
 * kernels/generate/montgomery.py explains the arithmetic and writes the straight-line parts (tiles); montgomery_ifma8.c
 * puts tiles together to the sizes:
 *
 *   limbs  bits of N  made of         for
 *   20     1024       one piece       RSA-2048: mod p, mod q
 *   30     1536       2 tiles of 15   RSA-3072: mod p, mod q
 *   40     2048       2 tiles of 20   RSA-4096: mod p, mod q;  RSA-2048: check mod n
 *   60     3072       3 tiles of 20   RSA-3072: check mod n
 *   80     4096       4 tiles of 20   RSA-4096: check mod n
 *
 * Limbs: a stored number has limbs below 2^52.
 *
 * Bound on columns: with n limbs, a column gets at most 2 n halves of products of at most 2^52 - 1 from a b and 2 n
 * from q N, and a carry: below (4 n + 1) 2^52 < 2^61 for n = 80. Karatsuba's middle terms add and subtract at most
 * three such products before they cancel: within 3 times that, less than 2^62 on either side of 0.
 *
 * Secret: every limb and every selection mask. Public: sizes and addresses. Nothing branches on a secret.
 */
#ifndef KERNELS_IFMA8_MONTGOMERY_IFMA8_H
#define KERNELS_IFMA8_MONTGOMERY_IFMA8_H

#include <stddef.h>

#include "kernels/ifma8/vec.h"

#define MONTGOMERY_LIMB_MASK ((UINT64_C(1) << 52) - 1)

enum { MONTGOMERY_LIMBS_MAX = 80, MONTGOMERY_TILE_MAX = 20, MONTGOMERY_TILES_MAX = 4 };

/* Where a multiplication computes: secret, in the workspace. */
typedef struct montgomery_scratch {
  vec columns[2 * MONTGOMERY_LIMBS_MAX];
  vec squares[2 * MONTGOMERY_LIMBS_MAX]; /* a_i b_i for every tile i, where `columns` cannot hold them */
  vec middle[2 * MONTGOMERY_TILE_MAX];   /* (a_i - a_j) (b_i - b_j) */
  vec quotient[MONTGOMERY_TILE_MAX];
  vec selected[2 * MONTGOMERY_TILE_MAX]; /* a table entry */
  vec difference[2][MONTGOMERY_TILE_MAX];
} montgomery_scratch;

typedef struct montgomery_modulus {
  unsigned limbs;     /* 20, 30, 40, 60 or 80 */
  const vec *modulus; /* `limbs` limbs, below 2^52; odd, at most 52 limbs - 16 bits */
  vec k0;             /* -1 / N mod 2^52 */
  montgomery_scratch *scratch;
} montgomery_modulus;

/* Which of the 16 entries of a table each lane wants: masks of the lanes whose number has bit 0, 1, 2, 3 set. */
typedef struct selection {
  vec_mask bit[4];
} selection;

/* result may be any of the operands, everywhere. */
#define montgomery_square VEC_NAME(montgomery_square)
#define montgomery_multiply VEC_NAME(montgomery_multiply)
#define montgomery_window VEC_NAME(montgomery_window)
#define montgomery_reduce VEC_NAME(montgomery_reduce)
#define montgomery_product VEC_NAME(montgomery_product)

void montgomery_square(const montgomery_modulus *m, vec *result, const vec *a);
void montgomery_multiply(const montgomery_modulus *m, vec *result, const vec *a, const vec *b);
/* One step of an exponentiation with a window of 4 bits: x = x^16 table[selected], `table` being 16 entries of `limbs`
 * limbs, all of which are read. Up to 40 limbs. */
void montgomery_window(const montgomery_modulus *m, vec *x, const vec *table, selection selected);
/* T / R mod N, at most N + T / R, of a number T with limbs below 2^52 in 2 `limbs` columns. */
void montgomery_reduce(const montgomery_modulus *m, vec *result, const vec *columns);

/* scratch->columns = a b, not reduced, carries not run; up to 40 limbs. */
void montgomery_product(const montgomery_modulus *m, const vec *a, const vec *b);

/* The generated parts. */
void VEC_NAME(montgomery_square_20)(vec *result, const vec *a, const vec *modulus, vec k0, vec *columns, vec *d);
void VEC_NAME(montgomery_square_selecting_20)(vec *result, const vec *a, const vec *modulus, vec k0, vec *columns,
                                              vec *d, const vec *table, vec_mask bit0, vec_mask bit1, vec_mask bit2,
                                              vec_mask bit3, vec *selected);
void VEC_NAME(montgomery_multiply_20)(vec *result, const vec *a, const vec *b, const vec *modulus, vec k0, vec *columns,
                                      vec *d, vec *e);
void VEC_NAME(montgomery_reduce_20)(vec *result, const vec *columns, const vec *modulus, vec k0);

#define DECLARE_TILES(size)                                                                                         \
  void VEC_NAME(tile_square_##size)(vec * columns, const vec *a);                                                   \
  void VEC_NAME(tile_product_##size)(vec * columns, const vec *a, const vec *b);                                    \
  void VEC_NAME(tile_add_product_##size)(vec * columns, const vec *a, const vec *b);                                \
  void VEC_NAME(tile_fold_square_##size)(vec * columns, const vec *a, vec_mask a_negative);                         \
  void VEC_NAME(tile_fold_product_##size)(vec * columns, const vec *a, vec_mask a_negative, const vec *b,           \
                                          vec_mask b_negative);                                                     \
  void VEC_NAME(tile_reduce_##size)(vec * columns, vec * q, const vec *modulus, vec k0);                            \
  void VEC_NAME(tile_reduce_selecting_##size)(vec * columns, vec * q, const vec *modulus, vec k0, const vec *table, \
                                              vec_mask bit0, vec_mask bit1, vec_mask bit2, vec_mask bit3,           \
                                              vec *selected);                                                       \
  void VEC_NAME(tile_finish_##size)(vec * result, const vec *columns, const vec *a, const vec *b);
DECLARE_TILES(15)
DECLARE_TILES(20)

#endif
