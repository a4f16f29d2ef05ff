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

#include "kernels/ifma8/vec8.h"

#define MONTGOMERY_LIMB_MASK ((UINT64_C(1) << 52) - 1)

enum { MONTGOMERY_LIMBS_MAX = 80, MONTGOMERY_TILE_MAX = 20, MONTGOMERY_TILES_MAX = 4 };

/* Where a multiplication computes: secret, in the workspace. */
typedef struct montgomery_scratch {
  vec8 columns[2 * MONTGOMERY_LIMBS_MAX];
  vec8 squares[2 * MONTGOMERY_LIMBS_MAX]; /* a_i b_i for every tile i, where `columns` cannot hold them */
  vec8 middle[2 * MONTGOMERY_TILE_MAX];   /* (a_i - a_j) (b_i - b_j) */
  vec8 quotient[MONTGOMERY_TILE_MAX];
  vec8 selected[2 * MONTGOMERY_TILE_MAX]; /* a table entry */
  vec8 difference[2][MONTGOMERY_TILE_MAX];
} montgomery_scratch;

typedef struct montgomery8 {
  unsigned limbs;      /* 20, 30, 40, 60 or 80 */
  const vec8 *modulus; /* `limbs` limbs, below 2^52; odd, at most 52 limbs - 16 bits */
  vec8 k0;             /* -1 / N mod 2^52 */
  montgomery_scratch *scratch;
} montgomery8;

/* Which of the 16 entries of a table each lane wants: masks of the lanes whose number has bit 0, 1, 2, 3 set. */
typedef struct selection8 {
  vec8_mask bit[4];
} selection8;

/* result may be any of the operands, everywhere. */
#define montgomery_square VEC8_NAME(montgomery_square)
#define montgomery_multiply VEC8_NAME(montgomery_multiply)
#define montgomery_window VEC8_NAME(montgomery_window)
#define montgomery_reduce VEC8_NAME(montgomery_reduce)
#define montgomery_product VEC8_NAME(montgomery_product)

void montgomery_square(const montgomery8 *m, vec8 *result, const vec8 *a);
void montgomery_multiply(const montgomery8 *m, vec8 *result, const vec8 *a, const vec8 *b);
/* One step of an exponentiation with a window of 4 bits: x = x^16 table[selected], `table` being 16 entries of `limbs`
 * limbs, all of which are read. Up to 40 limbs. */
void montgomery_window(const montgomery8 *m, vec8 *x, const vec8 *table, selection8 selected);
/* T / R mod N, at most N + T / R, of a number T with limbs below 2^52 in 2 `limbs` columns. */
void montgomery_reduce(const montgomery8 *m, vec8 *result, const vec8 *columns);

/* scratch->columns = a b, not reduced, carries not run; up to 40 limbs. */
void montgomery_product(const montgomery8 *m, const vec8 *a, const vec8 *b);

/* The generated parts. */
void VEC8_NAME(montgomery_square_20)(vec8 *result, const vec8 *a, const vec8 *modulus, vec8 k0, vec8 *columns, vec8 *d);
void VEC8_NAME(montgomery_square_selecting_20)(vec8 *result, const vec8 *a, const vec8 *modulus, vec8 k0, vec8 *columns,
                                               vec8 *d, const vec8 *table, vec8_mask bit0, vec8_mask bit1,
                                               vec8_mask bit2, vec8_mask bit3, vec8 *selected);
void VEC8_NAME(montgomery_multiply_20)(vec8 *result, const vec8 *a, const vec8 *b, const vec8 *modulus, vec8 k0,
                                       vec8 *columns, vec8 *d, vec8 *e);
void VEC8_NAME(montgomery_reduce_20)(vec8 *result, const vec8 *columns, const vec8 *modulus, vec8 k0);

#define DECLARE_TILES(size)                                                                                       \
  void VEC8_NAME(tile_square_##size)(vec8 * columns, const vec8 *a);                                              \
  void VEC8_NAME(tile_product_##size)(vec8 * columns, const vec8 *a, const vec8 *b);                              \
  void VEC8_NAME(tile_add_product_##size)(vec8 * columns, const vec8 *a, const vec8 *b);                          \
  void VEC8_NAME(tile_fold_square_##size)(vec8 * columns, const vec8 *a, vec8_mask a_negative);                   \
  void VEC8_NAME(tile_fold_product_##size)(vec8 * columns, const vec8 *a, vec8_mask a_negative, const vec8 *b,    \
                                           vec8_mask b_negative);                                                 \
  void VEC8_NAME(tile_reduce_##size)(vec8 * columns, vec8 * q, const vec8 *modulus, vec8 k0);                     \
  void VEC8_NAME(tile_reduce_selecting_##size)(vec8 * columns, vec8 * q, const vec8 *modulus, vec8 k0,            \
                                               const vec8 *table, vec8_mask bit0, vec8_mask bit1, vec8_mask bit2, \
                                               vec8_mask bit3, vec8 *selected);                                   \
  void VEC8_NAME(tile_finish_##size)(vec8 * result, const vec8 *columns, const vec8 *a, const vec8 *b);
DECLARE_TILES(15)
DECLARE_TILES(20)

#endif
