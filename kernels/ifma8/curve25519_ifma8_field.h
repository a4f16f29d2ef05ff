/* Arithmetic mod p = 2^255 - 19, eight elements at a time.
 *
 * Formula     fe_mul(a, b) = a b mod p, no Montgomery form: 2^260 = 32 * 19 = 608 mod p, so the upper five limbs of a
 *             product, once their carries have run, come back into the lower five times 608 (10 vpmadd52), and what
 *             then stands above bit 255 comes back times 19.
 * Lanes       limbs_ifma8.h, LIMBS = 5: 260 bits for numbers of 255, 5 bits to spare.
 * Bounds      counted in units of 2^255, a hair more than p. For tight a and b below 16 units each, a product is
 *             below 2^518, so its top limb is below 2^50, and 608 times the upper half is below 2^268: the result of
 *             fe_close is tight and below 1.01 units whatever a and b were.
 * Secret      every element. Nothing branches.
 */
#ifndef KERNELS_IFMA8_CURVE25519_IFMA8_FIELD_H
#define KERNELS_IFMA8_CURVE25519_IFMA8_FIELD_H

#define LIMBS 5
#include "ed25519_constants.h"
#include "kernels/ifma8/limbs_ifma8.h"

#define FE_UNIT (UINT64_C(1) << 47) /* one unit in the top limb, which starts at bit 208 */

/* t mod p: open, not negative, below 2^14 units. */
VEC_INLINE num fe_reduce(wide t) {
  const vec factor = vec_all(608);
  UNROLLED for (int i = LIMBS; i < 2 * LIMBS - 1; i++) {
    t.limb[i + 1] = vec_add(t.limb[i + 1], vec_shift_right(t.limb[i], 52));
  }
  num r;
  UNROLLED for (int i = 0; i < LIMBS; i++) r.limb[i] = vec_madd_low(t.limb[i], t.limb[LIMBS + i], factor);
  UNROLLED for (int i = 1; i < LIMBS; i++) r.limb[i] = vec_madd_high(r.limb[i], t.limb[LIMBS + i - 1], factor);
  const vec above = vec_madd_high(vec_zero(), t.limb[2 * LIMBS - 1], factor); /* of 2^260, below 2^10 */
  r.limb[0] = vec_madd_low(r.limb[0], above, factor);
  return r;
}

/* a mod p, tight and below 1.01 units; a is open, not negative and below 2^15 units.
 *
 * h = what stands above bit 255 before the carries run, below 2^16; the carries then add less than 2^-40 units. */
VEC_INLINE num fe_close(num a) {
  const vec h = vec_shift_right_signed(a.limb[LIMBS - 1], 47);
  a.limb[LIMBS - 1] = vec_and(a.limb[LIMBS - 1], vec_all(FE_UNIT - 1));
  a.limb[0] = vec_add(a.limb[0], vec_multiply(h, vec_all(19)));
  a = num_carry(a);
  num_assert(&a, FE_UNIT / 100 * 101);
  return a;
}

/* The same for an a of either sign, |a| < 2^15 units: between p - 2^-40 and 2.01 units, because p is added. */
VEC_INLINE num fe_close_signed(num a) {
  const vec h = vec_shift_right_signed(a.limb[LIMBS - 1], 47);
  a.limb[LIMBS - 1] = vec_and(a.limb[LIMBS - 1], vec_all(FE_UNIT - 1));
  a.limb[0] = vec_add(a.limb[0], vec_multiply(h, vec_all(19)));
  a = num_carry(num_add_constant(a, fe_p));
  num_assert(&a, FE_UNIT / 100 * 201);
  return a;
}

VEC_INLINE num fe_mul(const num *a, const num *b) {
  return fe_close(fe_reduce(wide_add_product(wide_zero(), a, b)));
}
VEC_INLINE num fe_square(const num *a) {
  return fe_close(fe_reduce(wide_square(a)));
}

/* Lanes where a = 0 mod p; a as in fe_close_signed, so it becomes p or 2 p there. */
VEC_INLINE vec_mask fe_is_zero(num a) {
  return num_is_zero(num_reduce_once(num_reduce_once(fe_close_signed(a), fe_p), fe_p));
}

#endif
