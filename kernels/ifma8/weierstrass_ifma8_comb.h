/* k G on y^2 = x^3 - 3 x + b (P-256, P-384), eight scalars at a time, from a table that all lanes share.
 *
 * Formula     Digits. Let k be odd and W = 7 COMB_WINDOWS, at least one bit more than k has. Then
 *                 k = sum over w of  d_w 2^(7 w),   d_w = 2 B_w - 127,   B_w = 7 bits of B = (k + 2^W - 1) / 2
 *             so every digit is odd, from -127 to 127, and never 0: |d_w| picks one of 64 entries, and bit 6 of B_w
 *             is set for the positive ones. For an even k the kernel takes n - k: that is -k G, which has the same
 *             x, and ECDSA needs only x.
 *
 *             Sum. The 37 (55) entries are added one after the other; there are no doublings. The sum is held as
 *             (X, Y, ZZ, ZZZ), x = X / ZZ, y = Y / ZZZ, ZZ^3 = ZZZ^2 ("XYZZ"). Adding an affine (x2, y2):
 *                 U = x2 ZZ     P = X - U     S = +-y2 ZZZ     R = S - Y     Q = X P^2
 *                 X' = R^2 + P^3 - 2 Q     Y' = R (Q - X') + Y P^3     ZZ' = ZZ P^2     ZZZ' = ZZZ P^3
 *             8 multiplications, 2 squares; the two products of Y' share a reduction. This P is the negative of the
 *             usual one: it saves a negation of P^3 and gives the *negative* of the sum. So every addition turns the
 *             sign of all before it, and the digits of every second window are taken with the other sign.
 *             (madd-2008-s of the Explicit-Formulas Database.)
 *
 * Exceptions  The formula is wrong where a term is the neutral point or the two points are equal or opposite.
 *             Write T for the sum of d_v 2^(7 v) over the windows v below w. T is odd and |T| < 2^(7 w), while
 *             |d_w 2^(7 w)| >= 2^(7 w): the two differ in size, so neither their sum nor their difference is 0. Both
 *             are below 2^(7 w + 7) in size, hence not 0 mod n either in any window but the last. In the last window
 *             the sum is k, not 0 mod n. The difference T - d 2^(7 w) is between -(d + 1) 2^(7 w) and 0, and reaches
 *             -n only for the largest d that can occur there (15 of P-256, 63 of P-384, as k < n), for exactly one odd
 *             k: 2 d 2^(7 w) - n. Only somebody who chooses k can hit that one k of 2^256 (2^384). It gives P = R = 0,
 *             so ZZ = 0 and in the end r = 0, which the checks reject: software signs. A test covers it.
 *
 * Lanes       limbs_ifma8.h.
 * Bounds      in units of 2^256 (2^384), see the field's header; on entry and exit of every addition
 *             X < 2.01, Y < 2.7, ZZ < 1.15, ZZZ < 1.15. Each value's bound is given beside it, for the worst case,
 *             P-256.
 * Secret      k and everything made of it. Nothing branches; the whole table is read for every digit, and the digit is
 *             used only as an index of vpermt2q and in masks.
 */
#ifndef KERNELS_IFMA8_WEIERSTRASS_IFMA8_COMB_H
#define KERNELS_IFMA8_WEIERSTRASS_IFMA8_COMB_H

#include "kernels/ifma8/comb_ifma8.h"

typedef struct point {
  num x, y, zz, zzz; /* tight, Montgomery form */
} point;

/* a b / R, a^2 / R and (a b + c d) / R, open. FE_FUNCTION is the field's choice between inlining and code size. */
FE_FUNCTION num fe_mul_open(const num *a, const num *b) {
  return fe_reduce(wide_add_product(wide_zero(), a, b));
}
FE_FUNCTION num fe_square_open(const num *a) {
  return fe_reduce(wide_square(a));
}
FE_FUNCTION num fe_two_products_open(const num *a, const num *b, const num *c, const num *d) {
  return fe_reduce(wide_add_product(wide_add_product(wide_zero(), a, b), c, d));
}
VEC_INLINE num fe_mul(const num *a, const num *b) {
  return num_carry(fe_mul_open(a, b));
}
VEC_INLINE num fe_square(const num *a) {
  return num_carry(fe_square_open(a));
}

#define POINT_ASSERT(a, hundredths) num_assert(a, FE_UNIT / 100 * (hundredths))

/* a + (x2, y2), or a - (x2, y2) in the lanes of `negative`, then negated; see above. x2, y2 < 1. */
VEC_INLINE void point_add_affine_negated(point *a, const num *x2, const num *y2, vec_mask negative) {
  /* U < 1.15/16 + 1 = 1.08;  P from 1 - 1.08 + 2 to 2.01 + 2 */
  const num u = fe_mul_open(x2, &a->zz);
  const num p = num_carry(num_add_constant(num_sub(a->x, u), fe_2p));
  /* S < 1.08;  R from -1.08 - 2.7 + 4 to 1.08 + 4 */
  const num s = fe_mul_open(y2, &a->zzz);
  const num r = num_carry(num_add_constant(num_sub(num_negate_if(negative, s), a->y), fe_4p));
  POINT_ASSERT(&p, 402);
  POINT_ASSERT(&r, 508);
  const num p_squared = fe_square(&p);        /* 4.02^2/16 + 1 = 2.02 */
  const num r_squared = fe_square_open(&r);   /* 5.08^2/16 + 1 = 2.62, open */
  const num q = fe_mul(&a->x, &p_squared);    /* 2.01 2.02/16 + 1 = 1.26 */
  const num p_cubed = fe_mul(&p, &p_squared); /* 4.02 2.02/16 + 1 = 1.51 */
  a->zz = fe_mul(&a->zz, &p_squared);         /* 1.15 2.02/16 + 1 = 1.15 */
  a->zzz = fe_mul(&a->zzz, &p_cubed);         /* 1.15 1.51/16 + 1 = 1.11 */
  /* from -2.52 to 4.13, then folded: between p and 2.01 */
  const num x = fe_fold(num_sub(num_sub(num_add(r_squared, p_cubed), q), q));
  const num q_x = num_carry(num_add_constant(num_sub(q, x), fe_3p)); /* from 0.99 to 3.27 */
  /* (5.08 3.27 + 2.7 1.51)/16 + 1 = 2.30 */
  a->y = num_carry(fe_two_products_open(&r, &q_x, &a->y, &p_cubed));
  a->x = x;
  POINT_ASSERT(&p_squared, 202);
  POINT_ASSERT(&p_cubed, 152);
  POINT_ASSERT(&q_x, 328);
  POINT_ASSERT(&a->y, 270);
  POINT_ASSERT(&a->zz, 115);
  POINT_ASSERT(&a->zzz, 115);
}

/* Entry of window w that the digit of each lane asks for. */
VEC_INLINE void comb_entry(const uint64_t table[COMB_PARTS][COMB_ENTRIES], const comb_digit *digit, num *x, num *y) {
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    x->limb[i] = comb_lookup(table[i], digit);
    y->limb[i] = comb_lookup(table[LIMBS + i], digit);
  }
}

/* sum = +-k G; 0 < k < n, and `scalar` is comb_recode(k). Returns the lanes in which the entries that were added are
 * those of k: their tags have the right sum. */
static __attribute__((noinline)) vec_mask comb_multiply(const uint64_t table[][COMB_PARTS][COMB_ENTRIES], const num *k,
                                                        const comb_scalar *scalar, point *sum) {
  comb_digit digit = comb_digit_of(scalar, 0);
  num x, y;
  vec tags = comb_tag(vec_zero(), table[0], &digit);
  comb_entry(table[0], &digit, &x, &y);
  /* The first term is turned COMB_WINDOWS - 1 times, the term of window w COMB_WINDOWS - w times. COMB_WINDOWS is odd:
   * the first and those of odd windows end as they were, the others are taken with the other sign beforehand. */
  sum->x = x;
  sum->y = num_carry(num_add_constant(num_negate_if(digit.negative, y), fe_p));
  sum->zz = num_all(fe_one);
  sum->zzz = num_all(fe_one);
  for (int w = 1; w < COMB_WINDOWS; w++) {
    digit = comb_digit_of(scalar, w);
    tags = comb_tag(tags, table[w], &digit);
    comb_entry(table[w], &digit, &x, &y);
    const vec_mask turned = (vec_mask)((w & 1) - 1);
    point_add_affine_negated(sum, &x, &y, (vec_mask)(digit.negative ^ turned));
  }
  return comb_tags_right(tags, k);
}

/* Lanes where the point is on the curve, Y^2 = X^3 - 3 X ZZ^2 + b ZZ^3 and ZZ^3 = ZZZ^2. */
static __attribute__((noinline)) vec_mask point_on_curve(const point *a) {
  const num one = num_small(1), b = num_all(fe_b);
  const num zz2 = fe_square(&a->zz), zz3 = fe_mul(&zz2, &a->zz), y2 = fe_square(&a->y), zzz2 = fe_square(&a->zzz);
  /* X^2 - 3 ZZ^2 from 0 - 3 1.09 + 4 to 1.26 + 4 */
  const num three_zz2 = num_add(num_add(zz2, zz2), zz2);
  const num factor = num_carry(num_add_constant(num_sub(fe_square_open(&a->x), three_zz2), fe_4p));
  const num right = fe_two_products_open(&a->x, &factor, &b, &zz3);
  /* right < (2.01 5.26 + 1.1)/16 + 1 = 1.73; the differences are from -1.8 + 2 to 1.5 + 2 */
  const num curve = num_carry(num_add_constant(num_sub(y2, right), fe_2p));
  const num denominators = num_carry(num_add_constant(num_sub(zz3, zzz2), fe_2p));
  /* times 1 / R: below 3.5/16 2^-256 + 1 units, that is at most p, and 0 mod p only as 0 or p */
  const num zero1 = num_reduce_once(fe_mul(&curve, &one), fe_p);
  const num zero2 = num_reduce_once(fe_mul(&denominators, &one), fe_p);
  return num_is_zero(zero1) & num_is_zero(zero2);
}

#endif
