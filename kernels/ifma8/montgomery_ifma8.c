/* Montgomery arithmetic of 30 to 80 limbs, made of tiles. See montgomery_ifma8.h.
 *
 *   a b    with a = sum a_i B^i over tiles, B = 2^(52 tile), by Karatsuba's identity for every pair of tiles:
 *            a_i b_j + a_j b_i = a_i b_i + a_j b_j - (a_i - a_j) (b_i - b_j)
 *          so k tiles take k (k + 1) / 2 products instead of k^2. A difference is signed: d = S - s B with 0 <= S < B
 *          and s = 1 where it is negative, and
 *            d e = S S' - B (s S' + s' S) + s s' B^2     for e = S' - s' B.
 *   q N    block by block: the tile on the diagonal makes q, the others add q N_j. (q is known only when the block
 *          below is done, so Karatsuba has no use here.)
 *
 * Two tiles are the fast case (exponentiations), with tiles that fold Karatsuba's middle term in while they compute it;
 * three and four serve the check with the public exponent.
 *
 * Lanes: one modulus each. Bounds: montgomery_ifma8.h. Secret: all limbs and signs. Loops run over tiles and limbs:
 * public.
 */
#include "kernels/ifma8/montgomery_ifma8.h"

typedef struct tile_kind {
  unsigned size;
  void (*square)(vec *columns, const vec *a);
  void (*product)(vec *columns, const vec *a, const vec *b);
  void (*add_product)(vec *columns, const vec *a, const vec *b);
  void (*fold_square)(vec *columns, const vec *a, vec_mask a_negative);
  void (*fold_product)(vec *columns, const vec *a, vec_mask a_negative, const vec *b, vec_mask b_negative);
  void (*reduce)(vec *columns, vec *q, const vec *modulus, vec k0);
  void (*reduce_selecting)(vec *columns, vec *q, const vec *modulus, vec k0, const vec *table, vec_mask bit0,
                           vec_mask bit1, vec_mask bit2, vec_mask bit3, vec *selected);
  void (*finish)(vec *result, const vec *columns, const vec *a, const vec *b);
} tile_kind;

#define TILE(name, size) VEC_NAME(tile_##name##_##size)
#define TILE_KIND(size_)                                 \
  {                                                      \
      .size = size_,                                     \
      .square = TILE(square, size_),                     \
      .product = TILE(product, size_),                   \
      .add_product = TILE(add_product, size_),           \
      .fold_square = TILE(fold_square, size_),           \
      .fold_product = TILE(fold_product, size_),         \
      .reduce = TILE(reduce, size_),                     \
      .reduce_selecting = TILE(reduce_selecting, size_), \
      .finish = TILE(finish, size_),                     \
  }
static const tile_kind tile15 = TILE_KIND(15);
static const tile_kind tile20 = TILE_KIND(20);

static const tile_kind *tile_for(unsigned limbs) {
  return limbs == 30 ? &tile15 : &tile20;
}

/* What a window step has its reduction tiles do beside: select the next SELECTED_LIMBS of a table entry. */
typedef struct side_selection {
  const vec *table;
  selection entry;
  unsigned done; /* limbs selected so far */
} side_selection;

enum { SELECTED_LIMBS = 5 }; /* as in montgomery.py; divides 20, 30 and 40 */

/* out = a - b, as limbs below 2^52, plus B where the mask says that it was negative. Limbs of a and b are masked. */
static vec_mask subtract_tiles(unsigned size, vec *out, const vec *a, const vec *b) {
  const vec limb_mask = vec_all(MONTGOMERY_LIMB_MASK);
  vec carry = vec_zero();
#pragma GCC unroll 5
  for (unsigned k = 0; k < size; k++) {
    vec limb = vec_add(vec_sub(vec_load(&a[k]), vec_load(&b[k])), carry);
    carry = vec_shift_right_signed(limb, 52);
    vec_store(&out[k], vec_and(limb, limb_mask));
  }
  VEC_ASSERT_WITHIN(carry, -1, 0);
  return vec_negative(carry);
}

/* Two tiles. */

static void square_two(const tile_kind *tile, montgomery_scratch *scratch, const vec *a) {
  unsigned size = tile->size;
  vec *d = scratch->difference[0];
  tile->square(scratch->columns, a);
  /* Between two tiles, so that its long chain of carries runs beside their multiplications. */
  vec_mask negative = subtract_tiles(size, d, a, a + size);
  tile->square(scratch->columns + 2 * size, a + size);
  tile->fold_square(scratch->columns, d, negative);
}

static void multiply_two(const tile_kind *tile, montgomery_scratch *scratch, const vec *a, const vec *b) {
  unsigned size = tile->size;
  vec *d = scratch->difference[0], *e = scratch->difference[1];
  tile->product(scratch->columns, a, b);
  vec_mask d_negative = subtract_tiles(size, d, a, a + size);
  vec_mask e_negative = subtract_tiles(size, e, b, b + size);
  tile->product(scratch->columns + 2 * size, a + size, b + size);
  tile->fold_product(scratch->columns, d, d_negative, e, e_negative);
}

static void reduce_two(const montgomery_modulus *m, vec *result, side_selection *side) {
  const tile_kind *tile = tile_for(m->limbs);
  unsigned size = tile->size;
  vec *columns = m->scratch->columns, *q = m->scratch->quotient;
  for (unsigned i = 0; i < 2; i++) {
    if (side == NULL || side->done == m->limbs) {
      tile->reduce(columns + i * size, q, m->modulus, m->k0);
    } else {
      const vec_mask *bit = side->entry.bit;
      tile->reduce_selecting(columns + i * size, q, m->modulus, m->k0, side->table + side->done, bit[0], bit[1], bit[2],
                             bit[3], m->scratch->selected + side->done);
      side->done += SELECTED_LIMBS;
    }
    if (i == 0) tile->add_product(columns + size, q, m->modulus + size);
  }
  tile->finish(result, columns + 2 * size, q, m->modulus + size);
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
      tile->square(squares + 2 * i * size, a + i * size);
    } else {
      tile->product(squares + 2 * i * size, a + i * size, b + i * size);
    }
  }
  memcpy(columns, squares, 2 * size * tiles * sizeof *columns);
  for (unsigned i = 0; i < tiles; i++) {
    for (unsigned j = i + 1; j < tiles; j++) {
      vec *d = scratch->difference[0], *e = scratch->difference[b == NULL ? 0 : 1];
      vec_mask d_negative = subtract_tiles(size, d, a + i * size, a + j * size), e_negative = d_negative;
      if (b == NULL) {
        tile->square(scratch->middle, d);
      } else {
        e_negative = subtract_tiles(size, e, b + i * size, b + j * size);
        tile->product(scratch->middle, d, e);
      }
      add_middle(size, columns + (i + j) * size, squares + 2 * i * size, squares + 2 * j * size, scratch->middle, d,
                 d_negative, e, e_negative);
    }
  }
}

static void reduce_many(const montgomery_modulus *m, vec *result) {
  const tile_kind *tile = tile_for(m->limbs);
  unsigned size = tile->size, limbs = m->limbs;
  vec *columns = m->scratch->columns;
  for (unsigned i = 0; i < limbs; i += size) {
    tile->reduce(columns + i, m->scratch->quotient, m->modulus, m->k0);
    for (unsigned j = size; j < limbs; j += size) {
      tile->add_product(columns + i + j, m->scratch->quotient, m->modulus + j);
    }
  }
  const vec limb_mask = vec_all(MONTGOMERY_LIMB_MASK);
  vec carry = vec_zero();
#pragma GCC unroll 5
  for (unsigned k = 0; k < limbs; k++) {
    vec limb = vec_add(vec_load(&columns[limbs + k]), carry);
    VEC_ASSERT_WITHIN(limb, -(INT64_C(1) << 62), INT64_C(1) << 62);
    carry = vec_shift_right_signed(limb, 52);
    vec_store(&result[k], vec_and(limb, limb_mask));
  }
  VEC_ASSERT_WITHIN(carry, 0, 0);
}

void montgomery_square(const montgomery_modulus *m, vec *result, const vec *a) {
  const tile_kind *tile = tile_for(m->limbs);
  unsigned tiles = m->limbs / tile->size;
  if (tiles == 1) {
    VEC_NAME(montgomery_square_20)(result, a, m->modulus, m->k0, m->scratch->columns, m->scratch->difference[0]);
  } else if (tiles == 2) {
    square_two(tile, m->scratch, a);
    reduce_two(m, result, NULL);
  } else {
    multiply_many(tile, tiles, m->scratch, a, NULL);
    reduce_many(m, result);
  }
}

void montgomery_multiply(const montgomery_modulus *m, vec *result, const vec *a, const vec *b) {
  const tile_kind *tile = tile_for(m->limbs);
  unsigned tiles = m->limbs / tile->size;
  if (tiles == 1) {
    VEC_NAME(montgomery_multiply_20)
    (result, a, b, m->modulus, m->k0, m->scratch->columns, m->scratch->difference[0], m->scratch->difference[1]);
  } else if (tiles == 2) {
    multiply_two(tile, m->scratch, a, b);
    reduce_two(m, result, NULL);
  } else {
    multiply_many(tile, tiles, m->scratch, a, b);
    reduce_many(m, result);
  }
}

void montgomery_product(const montgomery_modulus *m, const vec *a, const vec *b) {
  const tile_kind *tile = tile_for(m->limbs);
  if (m->limbs == tile->size) {
    tile->product(m->scratch->columns, a, b);
  } else {
    multiply_two(tile, m->scratch, a, b);
  }
}

void montgomery_window(const montgomery_modulus *m, vec *x, const vec *table, selection selected) {
  montgomery_scratch *scratch = m->scratch;
  if (m->limbs == 20) {
    const vec_mask *bit = selected.bit;
    for (unsigned i = 0; i < 20; i += SELECTED_LIMBS) {
      VEC_NAME(montgomery_square_selecting_20)
      (x, x, m->modulus, m->k0, scratch->columns, scratch->difference[0], table + i, bit[0], bit[1], bit[2], bit[3],
       scratch->selected + i);
    }
    montgomery_multiply(m, x, scratch->selected, x);
    return;
  }
  const tile_kind *tile = tile_for(m->limbs);
  side_selection side = {.table = table, .entry = selected};
  for (int i = 0; i < 4; i++) {
    square_two(tile, scratch, x);
    reduce_two(m, x, &side);
  }
  multiply_two(tile, scratch, scratch->selected, x);
  reduce_two(m, x, NULL);
}

void montgomery_reduce(const montgomery_modulus *m, vec *result, const vec *columns) {
  if (m->limbs == 20) {
    VEC_NAME(montgomery_reduce_20)(result, columns, m->modulus, m->k0);
    return;
  }
  memmove(m->scratch->columns, columns, 2 * m->limbs * sizeof *columns);
  if (m->limbs <= 40) {
    reduce_two(m, result, NULL);
  } else {
    reduce_many(m, result);
  }
}
