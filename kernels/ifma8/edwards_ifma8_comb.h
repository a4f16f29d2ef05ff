/* k B on -x^2 + y^2 = 1 + d x^2 y^2 (Ed25519), eight scalars at a time, from a table that all lanes share.
 *
 * Formula     Digits, table and tags are those of weierstrass_ifma8_comb.h: 37 odd digits, no doublings. The sum is
 *             held as (X, Y, Z, T), x = X / Z, y = Y / Z, T = X Y / Z; an entry is (y + x, y - x, 2 d x y). Adding one:
 *                 A = (Y - X)(y - x)     B = (Y + X)(y + x)     C = T 2 d x y     D = 2 Z
 *                 E = B - A     F = D - C     G = D + C     H = B + A
 *                 X' = E F     Y' = G H     T' = E H     Z' = F G
 *             7 multiplications. The negative of an entry has the first two changed places and the third negated.
 *             (Hisil, Wong, Carter, Dawson 2008; RFC 8032, 5.1.4.)
 * Exceptions  none: -1 is a square and d is not, so the formula is complete. k = 0 gives the neutral point.
 * Lanes       limbs_ifma8.h.
 * Bounds      in units of 2^255; X, Y, Z, T < 1.01 on entry and exit of every addition.
 * Secret      k and everything made of it. Nothing branches.
 */
#ifndef KERNELS_IFMA8_EDWARDS_IFMA8_COMB_H
#define KERNELS_IFMA8_EDWARDS_IFMA8_COMB_H

#include "kernels/ifma8/comb_ifma8.h"

typedef struct point {
  num x, y, z, t; /* tight */
} point;

/* Entry of the table that the digit of each lane asks for, with its sign; t2d is open. */
typedef struct entry {
  num y_plus_x, y_minus_x, t2d;
} entry;

VEC_INLINE entry comb_entry(const uint64_t table[COMB_PARTS][COMB_ENTRIES], const comb_digit *digit) {
  entry e;
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    const vec plus = comb_lookup(table[i], digit), minus = comb_lookup(table[LIMBS + i], digit);
    e.y_plus_x.limb[i] = vec_select(digit->negative, minus, plus);
    e.y_minus_x.limb[i] = vec_select(digit->negative, plus, minus);
    e.t2d.limb[i] = comb_lookup(table[2 * LIMBS + i], digit);
  }
  return e;
}

VEC_INLINE void point_add_entry(point *a, const entry *e, vec_mask negative) {
  const num difference = num_carry(num_add_constant(num_sub(a->y, a->x), fe_2p)); /* from 0.98 to 3.01 */
  const num sum = num_carry(num_add(a->y, a->x));                                 /* 2.02 */
  /* open, below 2^14 units each */
  const num aa = fe_reduce(wide_add_product(wide_zero(), &difference, &e->y_minus_x));
  const num bb = fe_reduce(wide_add_product(wide_zero(), &sum, &e->y_plus_x));
  const num cc = num_negate_if(negative, fe_reduce(wide_add_product(wide_zero(), &a->t, &e->t2d)));
  const num dd = num_add(a->z, a->z);
  /* 2.01 each */
  const num ee = fe_close_signed(num_sub(bb, aa)), ff = fe_close_signed(num_sub(dd, cc));
  const num gg = fe_close_signed(num_add(dd, cc)), hh = fe_close_signed(num_add(bb, aa));
  a->x = fe_mul(&ee, &ff);
  a->y = fe_mul(&gg, &hh);
  a->t = fe_mul(&ee, &hh);
  a->z = fe_mul(&ff, &gg);
}

/* sum = k' B, k' the odd one of k and n - k: -k B in the lanes of scalar->turned. 0 <= k < n, and `scalar` is
 * comb_recode(k). Returns the lanes in which the entries that were added are those of k': their tags have the right
 * sum. */
static __attribute__((noinline)) vec_mask comb_multiply(const uint64_t table[][COMB_PARTS][COMB_ENTRIES], const num *k,
                                                        const comb_scalar *scalar, point *sum) {
  vec tags = vec_zero();
  *sum = (point){num_small(0), num_small(1), num_small(1), num_small(0)};
  for (int w = 0; w < COMB_WINDOWS; w++) {
    const comb_digit digit = comb_digit_of(scalar, w);
    tags = comb_tag(tags, table[w], &digit);
    const entry e = comb_entry(table[w], &digit);
    point_add_entry(sum, &e, digit.negative);
  }
  return comb_tags_right(tags, k);
}

/* Lanes where the point is on the curve: (Y^2 - X^2) Z^2 = Z^4 + d X^2 Y^2 and X Y = Z T. */
static __attribute__((noinline)) vec_mask point_on_curve(const point *a) {
  const num d = num_all(fe_d);
  const num x2 = fe_square(&a->x), y2 = fe_square(&a->y), z2 = fe_square(&a->z);
  const num difference = num_carry(num_add_constant(num_sub(y2, x2), fe_2p));
  const num left = fe_mul(&difference, &z2), z4 = fe_square(&z2), x2y2 = fe_mul(&x2, &y2), right = fe_mul(&d, &x2y2);
  const num xy = fe_mul(&a->x, &a->y), zt = fe_mul(&a->z, &a->t);
  return fe_is_zero(num_sub(num_sub(left, z4), right)) & fe_is_zero(num_sub(xy, zt));
}

#endif
