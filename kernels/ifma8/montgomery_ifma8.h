/* Montgomery arithmetic modulo eight numbers at once, one per lane; the sizes that RSA needs.
 *
 *   multiply(a, b) = a b / R mod N,   R = 2^(52 limbs),   a, b < 2 N  ->  result < 2 N
 *
 * kernels/generate/montgomery.py explains the arithmetic and generates the straight-line parts (tiles);
 * montgomery_ifma8.c combines tiles into the sizes:
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
 * Folded modulus (montgomery_fold), for 40 limbs, two tiles, B = 2^(52 tile): with k = -1 / N mod B the number k N is
 * -1 mod B. So a reduction by one tile needs no quotients that depend on each other: the lowest tile itself is the
 * quotient q, and (T + q k N) / B = T / B rounded down + q (k N + 1) / B. Its products can be made of halves. k N is
 * larger than N by up to a tile, which the second tile, reduced by N, takes off again:
 *
 *   a, b < (2 + 2^-13) N,  N < 2^-16 R   gives   (T + q k N) / B < (2^-13 + 1) B N,   then  < (1 + 2^-13) N + N .
 *
 * So there "2 N" stands for (2 + 2^-13) N. Of a number T < R it makes less than 2 N: q and k are at most B - 1.
 *
 * Bound on columns, in halves of products (h, below 2^52). A square or product of tiles of 20 limbs has columns of at
 * most 60 h (made of halves: three products of 20 h meet in a column), and not less than -40 h. Two tiles: three of
 * those and the reduction, 500 h at most. Four tiles: a column of the product gets 60 h and, from four pairs of tiles,
 * 182 h each; from the reduction four times 120 h: 1268 h, below MONTGOMERY_COLUMN_LIMIT, which is 1280 h. The
 * generator proves that no function leaves 64 bits when it begins with columns within that.
 *
 * Secret: every limb and every selection mask. Public: sizes and addresses. Nothing branches on a secret.
 */
#ifndef KERNELS_IFMA8_MONTGOMERY_IFMA8_H
#define KERNELS_IFMA8_MONTGOMERY_IFMA8_H

#include <stddef.h>

#include "kernels/ifma8/montgomery_products.h"
#include "kernels/ifma8/vec.h"

#define MONTGOMERY_LIMB_MASK ((UINT64_C(1) << 52) - 1)
#define MONTGOMERY_COLUMN_LIMIT (INT64_C(5) << 60)

enum { MONTGOMERY_LIMBS_MAX = 80, MONTGOMERY_TILE_MAX = 20, MONTGOMERY_TILES_MAX = 4 };

/* A tile as a factor of many products. Tiles of 20 limbs are multiplied by halves; then this keeps upper minus lower
 * half, as limbs below 2^52, plus B = 2^(52 half) where the mask says that it is negative. */
typedef struct tile_factor {
  const vec *limbs;
  vec *difference;
  vec_mask negative;
} tile_factor;

/* Scratch memory of a multiplication: secret, in the workspace. */
typedef struct montgomery_scratch {
  vec columns[2 * MONTGOMERY_LIMBS_MAX];
  vec squares[2 * MONTGOMERY_LIMBS_MAX]; /* a_i b_i for every tile i, where `columns` cannot hold them */
  vec middle[2 * MONTGOMERY_TILE_MAX];   /* (a_i - a_j) (b_i - b_j) */
  vec quotient[MONTGOMERY_TILE_MAX];
  vec selected[2 * MONTGOMERY_TILE_MAX]; /* a table entry */
  vec difference[2][MONTGOMERY_TILE_MAX];
  vec of_factor[MONTGOMERY_TILE_MAX / 2];
  vec of_modulus[MONTGOMERY_TILES_MAX][MONTGOMERY_TILE_MAX / 2];
  vec folded[2 * MONTGOMERY_TILE_MAX], of_folded[2][MONTGOMERY_TILE_MAX / 2];
  vec spare[3 * MONTGOMERY_TILE_MAX / 2];
  vec carry; /* of the lowest tile, when it was made a quotient */
} montgomery_scratch;

typedef struct tile_kind tile_kind;

typedef struct montgomery_modulus {
  montgomery_products products;
  const tile_kind *kind;
  unsigned tiles;
  unsigned limbs;     /* 20, 30, 40, 60 or 80 */
  const vec *modulus; /* `limbs` limbs, below 2^52; odd, at most 52 limbs - 16 bits */
  vec k0;             /* -1 / N mod 2^52 */
  montgomery_scratch *scratch;
  tile_factor tile[MONTGOMERY_TILES_MAX]; /* the modulus */
  tile_factor folded[2];                  /* (k N + 1) / B; its limbs are NULL: not made */
} montgomery_modulus;

/* Which of the 16 entries of a table each lane wants: masks of the lanes whose number has bit 0, 1, 2, 3 set. */
typedef struct selection {
  vec_mask bit[4];
} selection;

#define montgomery_prepare VEC_NAME(montgomery_prepare)
#define montgomery_fold VEC_NAME(montgomery_fold)
#define montgomery_square VEC_NAME(montgomery_square)
#define montgomery_multiply VEC_NAME(montgomery_multiply)
#define montgomery_window VEC_NAME(montgomery_window)
#define montgomery_reduce VEC_NAME(montgomery_reduce)
#define montgomery_product VEC_NAME(montgomery_product)

/* Keeps references to `modulus` and `scratch`. */
montgomery_modulus montgomery_prepare(montgomery_products products, unsigned limbs, const vec *modulus, vec k0,
                                      montgomery_scratch *scratch);
/* Makes the folded modulus where it helps (40 limbs); worthwhile before many multiplications. */
void montgomery_fold(montgomery_modulus *m);

/* result may be any of the operands, everywhere. A square of 20 limbs may keep in its limbs the bits above 52 that the
 * next limb has been given; multiplications do not see them. */
void montgomery_square(const montgomery_modulus *m, vec *result, const vec *a);
void montgomery_multiply(const montgomery_modulus *m, vec *result, const vec *a, const vec *b);
/* One step of an exponentiation with a window of 4 bits: x = x^16 table[selected], `table` being 16 entries of `limbs`
 * limbs, all of which are read. Up to 40 limbs. */
void montgomery_window(const montgomery_modulus *m, vec *x, const vec *table, selection selected);
/* T / R mod N of a number T with limbs below 2^52 in 2 `limbs` columns: at most N + T / R, with a folded modulus 2 N +
 * T / R; below 2 N if T < R. */
void montgomery_reduce(const montgomery_modulus *m, vec *result, const vec *columns);

/* scratch->columns = a b, not reduced, carries not run; up to 40 limbs. */
void montgomery_product(const montgomery_modulus *m, const vec *a, const vec *b);

/* The generated parts. */
#define DECLARE_ONE_PIECE(way)                                                                                       \
  void VEC_NAME(montgomery_square_##way##20)(vec * result, const vec *a, const vec *modulus, vec k0, vec *columns,   \
                                             vec *spare);                                                            \
  void VEC_NAME(montgomery_square_##way##selecting_20)(vec * result, const vec *a, const vec *modulus, vec k0,       \
                                                       vec *columns, vec *spare, const vec *table, vec_mask bit0,    \
                                                       vec_mask bit1, vec_mask bit2, vec_mask bit3, vec *selected);  \
  void VEC_NAME(montgomery_multiply_##way##20)(vec * result, const vec *a, const vec *b, const vec *modulus, vec k0, \
                                               vec *columns, vec *d, vec *e);
DECLARE_ONE_PIECE()
DECLARE_ONE_PIECE(direct_)
void VEC_NAME(montgomery_reduce_20)(vec *result, const vec *columns, const vec *modulus, vec k0);

#define DECLARE_TILES(size)                                                                                            \
  void VEC_NAME(tile_square_##size)(vec * columns, const vec *a, vec *spare);                                          \
  void VEC_NAME(tile_product_##size)(vec * columns, const vec *a, const vec *b, vec *spare);                           \
  void VEC_NAME(tile_add_product_##size)(vec * columns, const vec *a, const tile_factor *factor, vec *spare);          \
  void VEC_NAME(tile_finish_##size)(vec * result, vec * columns, const vec *a, const tile_factor *factor, vec *spare); \
  void VEC_NAME(tile_fold_square_##size)(vec * columns, const vec *a, vec_mask a_negative);                            \
  void VEC_NAME(tile_reduce_##size)(vec * columns, vec * q, const vec *modulus, vec k0);                               \
  void VEC_NAME(tile_reduce_selecting_##size)(vec * columns, vec * q, const vec *modulus, vec k0, const vec *table,    \
                                              vec_mask bit0, vec_mask bit1, vec_mask bit2, vec_mask bit3,              \
                                              vec *selected);
DECLARE_TILES(15)
DECLARE_TILES(20)
void VEC_NAME(tile_square_direct_20)(vec *columns, const vec *a, vec *spare);

#endif
