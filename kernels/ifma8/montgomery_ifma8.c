/* Montgomery arithmetic of 30 to 80 limbs, made of tiles. See montgomery_ifma8.h.
 *
 *   a b    with a = sum a_i B^i over tiles, B = 2^(52 tile), by Karatsuba's identity for every pair of tiles:
 *            a_i b_j + a_j b_i = a_i b_i + a_j b_j - (a_i - a_j) (b_i - b_j)
 *          so k tiles take k (k + 1) / 2 products instead of k^2. A difference is signed: d = S - s B with 0 <= S < B
 *          and s = 1 where it is negative, and
 *            d e = S S' - B (s S' + s' S) + s s' B^2     for e = S' - s' B.
 *          Tiles of 20 limbs are made of halves in the same way (karatsuba.py).
 *   q N    block by block: the tile on the diagonal makes q, the others add q N_j. q is known only when the block below
 *          is done, so Karatsuba helps only inside a tile; or, with the folded modulus, for the whole lower half.
 *
 * Two tiles are the fast case (exponentiations); three and four serve the check with the public exponent.
 *
 * Lanes: one modulus each. Bounds: montgomery_ifma8.h. Secret: all limbs and signs. Loops run over tiles and limbs:
 * public.
 */
#include "kernels/ifma8/montgomery_ifma8.h"

struct tile_kind {
  unsigned size;
  unsigned half;     /* limbs of a half; 0: products are not made of halves */
  unsigned selected; /* limbs of a table entry that reduce_selecting selects */
  void (*square)(vec *columns, const vec *a, vec *spare);
  void (*product)(vec *columns, const vec *a, const vec *b, vec *spare);
  void (*add_product)(vec *columns, const vec *a, const tile_factor *factor, vec *spare);
  void (*finish)(vec *result, vec *columns, const vec *a, const tile_factor *factor, vec *spare);
  void (*fold_square)(vec *columns, const vec *a, vec_mask a_negative);
  void (*reduce)(vec *columns, vec *q, const vec *modulus, vec k0);
  void (*reduce_selecting)(vec *columns, vec *q, const vec *modulus, vec k0, const vec *table, vec_mask bit0,
                           vec_mask bit1, vec_mask bit2, vec_mask bit3, vec *selected);
};

#define TILE(name, size) VEC_NAME(tile_##name##_##size)
#define TILE_KIND(size_, half_, square_, selected_)      \
  {                                                      \
      .size = size_,                                     \
      .half = half_,                                     \
      .selected = selected_,                             \
      .square = TILE(square_, size_),                    \
      .product = TILE(product, size_),                   \
      .add_product = TILE(add_product, size_),           \
      .finish = TILE(finish, size_),                     \
      .fold_square = TILE(fold_square, size_),           \
      .reduce = TILE(reduce, size_),                     \
      .reduce_selecting = TILE(reduce_selecting, size_), \
  }
/* Limbs of a table entry that a reduction selects: PASSES of montgomery.py, times SELECTED for tiles. They divide 20;
 * 30; 40. */
enum { SELECTED_IN_ONE_PIECE = 5, SELECTED_BY_TILE15 = 5, SELECTED_BY_TILE20 = 10 };
static const tile_kind tile15 = TILE_KIND(15, 0, square, SELECTED_BY_TILE15);
static const tile_kind tile20[MONTGOMERY_WAYS] = {
    [MONTGOMERY_KARATSUBA] = TILE_KIND(20, 10, square, SELECTED_BY_TILE20),
    [MONTGOMERY_SCHOOLBOOK] = TILE_KIND(20, 10, square_direct, SELECTED_BY_TILE20),
};

static const struct {
  void (*square)(vec *result, const vec *a, const vec *modulus, vec k0, vec *columns, vec *spare);
  void (*square_selecting)(vec *result, const vec *a, const vec *modulus, vec k0, vec *columns, vec *spare,
                           const vec *table, vec_mask bit0, vec_mask bit1, vec_mask bit2, vec_mask bit3, vec *selected);
  void (*multiply)(vec *result, const vec *a, const vec *b, const vec *modulus, vec k0, vec *columns, vec *d, vec *e);
} in_one_piece[MONTGOMERY_WAYS] = {
    [MONTGOMERY_KARATSUBA] = {VEC_NAME(montgomery_square_20), VEC_NAME(montgomery_square_selecting_20),
                              VEC_NAME(montgomery_multiply_20)},
    [MONTGOMERY_SCHOOLBOOK] = {VEC_NAME(montgomery_square_direct_20), VEC_NAME(montgomery_square_direct_selecting_20),
                               VEC_NAME(montgomery_multiply_direct_20)},
};

/* The work that a window step interleaves with its reduction tiles: selecting the next limbs of a table entry. */
typedef struct side_selection {
  const vec *table;
  selection entry;
  unsigned done; /* limbs selected so far */
} side_selection;

/* out = a - b, as limbs below 2^52, plus B where the mask says that it was negative. Limbs of a and b are masked. */
static vec_mask subtract(unsigned limbs, vec *out, const vec *a, const vec *b) {
  const vec limb_mask = vec_all(MONTGOMERY_LIMB_MASK);
  vec carry = vec_zero();
#pragma GCC unroll 5
  for (unsigned k = 0; k < limbs; k++) {
    vec limb = vec_add(vec_sub(vec_load(&a[k]), vec_load(&b[k])), carry);
    carry = vec_shift_right_signed(limb, 52);
    vec_store(&out[k], vec_and(limb, limb_mask));
  }
  VEC_ASSERT_WITHIN(carry, -1, 0);
  return vec_negative(carry);
}

/* result = columns with their carries run, as limbs below 2^52; returns the carry that is left. */
static vec carry_limbs(unsigned limbs, vec *result, const vec *columns) {
  const vec limb_mask = vec_all(MONTGOMERY_LIMB_MASK);
  vec carry = vec_zero();
#pragma GCC unroll 5
  for (unsigned k = 0; k < limbs; k++) {
    vec limb = vec_add(vec_load(&columns[k]), carry);
    VEC_ASSERT_WITHIN(limb, -MONTGOMERY_COLUMN_LIMIT, MONTGOMERY_COLUMN_LIMIT);
    carry = vec_shift_right_signed(limb, 52);
    vec_store(&result[k], vec_and(limb, limb_mask));
  }
  return carry;
}

/* `difference` is room for half a tile. */
static tile_factor factor_of(const tile_kind *tile, const vec *limbs, vec *difference) {
  return (tile_factor){limbs, difference, subtract(tile->half, difference, limbs + tile->half, limbs)};
}

/* Two tiles. */

/* Where the modulus is folded, the lowest tile is the first quotient as soon as it is there and its carries have run:
 * early, so that they run beside the multiplications of other tiles. */
static void quotient_of_lowest(const montgomery_modulus *m, const tile_kind *tile) {
  if (m->folded[0].limbs == NULL) return;
  m->scratch->carry = carry_limbs(tile->size, m->scratch->quotient, m->scratch->columns);
}

static void square_two(const montgomery_modulus *m, const tile_kind *tile, const vec *a) {
  montgomery_scratch *scratch = m->scratch;
  unsigned size = tile->size;
  vec *d = scratch->difference[0];
  tile->square(scratch->columns, a, scratch->spare);
  /* Between two tiles, so that its long chain of carries overlaps with their multiplications. */
  vec_mask negative = subtract(size, d, a, a + size);
  quotient_of_lowest(m, tile);
  tile->square(scratch->columns + 2 * size, a + size, scratch->spare);
  tile->fold_square(scratch->columns, d, negative);
}

/* a_0 b_0 + B (a_0 b_0 + a_1 b_1 + d e) + B^2 a_1 b_1 with d = a_0 - a_1 and e = b_1 - b_0. */
static void multiply_two(const montgomery_modulus *m, const tile_kind *tile, const vec *a, const vec *b) {
  montgomery_scratch *scratch = m->scratch;
  unsigned size = tile->size;
  vec *columns = scratch->columns, *d = scratch->difference[0], *e = scratch->difference[1];
  tile->product(columns, a, b, scratch->spare);
  vec_mask d_negative = subtract(size, d, a, a + size);
  vec_mask e_negative = subtract(size, e, b + size, b);
  tile->product(columns + 2 * size, a + size, b + size, scratch->spare);
  tile_factor e_factor = factor_of(tile, e, scratch->of_factor);
  quotient_of_lowest(m, tile);

#pragma GCC unroll 5
  for (unsigned k = 0; k < size; k++) {
    vec both = vec_add(vec_load(&columns[size + k]), vec_load(&columns[2 * size + k]));
    vec high = vec_add(both, vec_load(&columns[3 * size + k]));
    high = vec_masked_sub(d_negative, high, vec_load(&e[k]));
    high = vec_masked_sub(e_negative, high, vec_load(&d[k]));
    vec_store(&columns[size + k], vec_add(both, vec_load(&columns[k])));
    vec_store(&columns[2 * size + k], high);
  }
  vec corner = vec_load(&columns[3 * size]);
  vec_store(&columns[3 * size], vec_masked_add(d_negative & e_negative, corner, vec_all(1)));
  tile->add_product(columns + size, d, &e_factor, scratch->spare);
}

/* columns = columns / B mod N: adds q times the folded modulus, which is k N = -1 mod B, and makes the lower tile
 * vanish: columns + q k N = columns - q + B q (k N + 1) / B. */
static void reduce_folded(const montgomery_modulus *m, const tile_kind *tile) {
  montgomery_scratch *scratch = m->scratch;
  vec *columns = scratch->columns + tile->size;
  vec_store(columns, vec_add(vec_load(columns), scratch->carry));
  for (unsigned j = 0; j < 2; j++) {
    tile->add_product(columns + j * tile->size, scratch->quotient, &m->folded[j], scratch->spare);
  }
}

/* columns = columns / B mod N; the caller computes the upper tile's product. */
static void reduce_tile(const montgomery_modulus *m, const tile_kind *tile, vec *columns, side_selection *side) {
  montgomery_scratch *scratch = m->scratch;
  if (side == NULL || side->done == m->limbs) {
    tile->reduce(columns, scratch->quotient, m->modulus, m->k0);
  } else {
    const vec_mask *bit = side->entry.bit;
    tile->reduce_selecting(columns, scratch->quotient, m->modulus, m->k0, side->table + side->done, bit[0], bit[1],
                           bit[2], bit[3], scratch->selected + side->done);
    side->done += tile->selected;
  }
}

static void reduce_two(const montgomery_modulus *m, vec *result, side_selection *side) {
  const tile_kind *tile = m->kind;
  unsigned size = tile->size;
  montgomery_scratch *scratch = m->scratch;
  vec *columns = scratch->columns;
  if (m->folded[0].limbs != NULL) {
    reduce_folded(m, tile);
  } else {
    reduce_tile(m, tile, columns, side);
    tile->add_product(columns + size, scratch->quotient, &m->tile[1], scratch->spare);
  }
  reduce_tile(m, tile, columns + size, side);
  tile->finish(result, columns + 2 * size, scratch->quotient, &m->tile[1], scratch->spare);
}

/* Three and four tiles. */

/* columns += first + second - product of the differences d and e, which is in `middle`. */
static void add_middle(unsigned size, vec *columns, const vec *first, const vec *second, const vec *middle,
                       const vec *d, vec_mask d_negative, const vec *e, vec_mask e_negative) {
  for (unsigned k = 0; k < 2 * size; k++) {
    vec sum = vec_add(vec_load(&first[k]), vec_load(&second[k]));
    sum = vec_sub(vec_add(vec_load(&columns[k]), sum), vec_load(&middle[k]));
    if (k >= size) {
      sum = vec_masked_add(d_negative, sum, vec_load(&e[k - size]));
      sum = vec_masked_add(e_negative, sum, vec_load(&d[k - size]));
    }
    vec_store(&columns[k], sum);
  }
  vec corner = vec_load(&columns[2 * size]);
  vec_store(&columns[2 * size], vec_masked_sub(d_negative & e_negative, corner, vec_all(1)));
}

/* columns = a b, or a^2 where b is NULL. */
static void multiply_many(const tile_kind *tile, unsigned tiles, montgomery_scratch *scratch, const vec *a,
                          const vec *b) {
  unsigned size = tile->size;
  vec *columns = scratch->columns, *squares = scratch->squares;
  for (unsigned i = 0; i < tiles; i++) {
    if (b == NULL) {
      tile->square(squares + 2 * i * size, a + i * size, scratch->spare);
    } else {
      tile->product(squares + 2 * i * size, a + i * size, b + i * size, scratch->spare);
    }
  }
  memcpy(columns, squares, 2 * size * tiles * sizeof *columns);
  for (unsigned i = 0; i < tiles; i++) {
    for (unsigned j = i + 1; j < tiles; j++) {
      vec *d = scratch->difference[0], *e = scratch->difference[b == NULL ? 0 : 1];
      vec_mask d_negative = subtract(size, d, a + i * size, a + j * size), e_negative = d_negative;
      if (b == NULL) {
        tile->square(scratch->middle, d, scratch->spare);
      } else {
        e_negative = subtract(size, e, b + i * size, b + j * size);
        tile->product(scratch->middle, d, e, scratch->spare);
      }
      add_middle(size, columns + (i + j) * size, squares + 2 * i * size, squares + 2 * j * size, scratch->middle, d,
                 d_negative, e, e_negative);
    }
  }
}

static void reduce_many(const montgomery_modulus *m, vec *result) {
  const tile_kind *tile = m->kind;
  unsigned size = tile->size, limbs = m->limbs;
  vec *columns = m->scratch->columns;
  for (unsigned i = 0; i < limbs; i += size) {
    reduce_tile(m, tile, columns + i, NULL);
    for (unsigned j = 1; j * size < limbs; j++) {
      tile->add_product(columns + i + j * size, m->scratch->quotient, &m->tile[j], m->scratch->spare);
    }
  }
  vec carry = carry_limbs(limbs, result, columns + limbs);
  VEC_ASSERT_WITHIN(carry, 0, 0);
}

montgomery_modulus montgomery_prepare(montgomery_products products, unsigned limbs, const vec *modulus, vec k0,
                                      montgomery_scratch *scratch) {
  const tile_kind *tile = limbs == 30 ? &tile15 : &tile20[products];
  montgomery_modulus m = {
      .products = products, .kind = tile, .limbs = limbs, .modulus = modulus, .k0 = k0, .scratch = scratch};
  for (m.tiles = 1; m.tiles * tile->size < limbs; m.tiles++) {
    m.tile[m.tiles] = factor_of(tile, modulus + m.tiles * tile->size, scratch->of_modulus[m.tiles]);
  }
  return m;
}

/* (k N + 1) / B is what a reduction by one tile makes of 1. */
void montgomery_fold(montgomery_modulus *m) {
  if (m->limbs != 40) return;
  const tile_kind *tile = m->kind;
  montgomery_scratch *scratch = m->scratch;
  vec *columns = scratch->columns;
  memset(columns, 0, 3 * tile->size * sizeof *columns);
  vec_store(columns, vec_all(1));
  reduce_tile(m, tile, columns, NULL);
  tile->add_product(columns + tile->size, scratch->quotient, &m->tile[1], scratch->spare);
  vec carry = carry_limbs(2 * tile->size, scratch->folded, columns + tile->size);
  VEC_ASSERT_WITHIN(carry, 0, 0);
  for (unsigned j = 0; j < 2; j++) {
    m->folded[j] = factor_of(tile, scratch->folded + j * tile->size, scratch->of_folded[j]);
  }
}

void montgomery_square(const montgomery_modulus *m, vec *result, const vec *a) {
  const tile_kind *tile = m->kind;
  if (m->tiles == 1) {
    in_one_piece[m->products].square(result, a, m->modulus, m->k0, m->scratch->columns, m->scratch->spare);
  } else if (m->tiles == 2) {
    square_two(m, tile, a);
    reduce_two(m, result, NULL);
  } else {
    multiply_many(tile, m->tiles, m->scratch, a, NULL);
    reduce_many(m, result);
  }
}

void montgomery_multiply(const montgomery_modulus *m, vec *result, const vec *a, const vec *b) {
  const tile_kind *tile = m->kind;
  if (m->tiles == 1) {
    in_one_piece[m->products].multiply(result, a, b, m->modulus, m->k0, m->scratch->columns, m->scratch->difference[0],
                                       m->scratch->difference[1]);
  } else if (m->tiles == 2) {
    multiply_two(m, tile, a, b);
    reduce_two(m, result, NULL);
  } else {
    multiply_many(tile, m->tiles, m->scratch, a, b);
    reduce_many(m, result);
  }
}

void montgomery_product(const montgomery_modulus *m, const vec *a, const vec *b) {
  const tile_kind *tile = m->kind;
  if (m->tiles == 1) {
    tile->product(m->scratch->columns, a, b, m->scratch->spare);
  } else {
    multiply_two(m, tile, a, b);
  }
}

void montgomery_window(const montgomery_modulus *m, vec *x, const vec *table, selection selected) {
  montgomery_scratch *scratch = m->scratch;
  if (m->limbs == 20) {
    const vec_mask *bit = selected.bit;
    for (unsigned i = 0; i < 20; i += SELECTED_IN_ONE_PIECE) {
      in_one_piece[m->products].square_selecting(x, x, m->modulus, m->k0, scratch->columns, scratch->spare, table + i,
                                                 bit[0], bit[1], bit[2], bit[3], scratch->selected + i);
    }
    montgomery_multiply(m, x, scratch->selected, x);
    return;
  }
  const tile_kind *tile = m->kind;
  side_selection side = {.table = table, .entry = selected};
  for (int i = 0; i < 4; i++) {
    square_two(m, tile, x);
    reduce_two(m, x, &side);
  }
  multiply_two(m, tile, scratch->selected, x);
  reduce_two(m, x, NULL);
}

void montgomery_reduce(const montgomery_modulus *m, vec *result, const vec *columns) {
  if (m->limbs == 20) {
    VEC_NAME(montgomery_reduce_20)(result, columns, m->modulus, m->k0);
    return;
  }
  memmove(m->scratch->columns, columns, 2 * m->limbs * sizeof *columns);
  if (m->limbs <= 40) {
    quotient_of_lowest(m, m->kind);
    reduce_two(m, result, NULL);
  } else {
    reduce_many(m, result);
  }
}
