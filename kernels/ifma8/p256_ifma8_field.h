/* Arithmetic mod p = 2^256 - 2^224 + 2^192 + 2^96 - 1 (P-256), eight elements at a time.
 *
 * Formula     Montgomery with R = 2^260: fe_mul(a, b) = a b / R mod p. Since -1/p = 1 mod 2^52 the quotient digit of a
 *             reduction row is the lowest limb itself, and adding q p is adding q (p + 1) and dropping that limb:
 *             p + 1 = 2^96 + 2^192 + (2^256 - 2^224) has three limbs that are not 0, so a row costs 6 vpmadd52, not 10.
 * Lanes       limbs_ifma8.h, LIMBS = 5: 260 bits for numbers of 256, 4 bits to spare.
 * Bounds      counted in units of 2^256, a hair more than p. For tight a < A units and b < B units the result is tight
 *             and below A B / 16 + 1 units, because a b / R < A B 2^512 / 2^260, and the quotient is below R, so that
 *             it adds less than p. All results are kept below 16 units (260 bits).
 * Secret      every element. Nothing branches.
 */
#ifndef KERNELS_IFMA8_P256_IFMA8_FIELD_H
#define KERNELS_IFMA8_P256_IFMA8_FIELD_H

#define LIMBS 5
#include "kernels/ifma8/limbs_ifma8.h"
#include "p256_constants.h"

#define FE_UNIT (UINT64_C(1) << 48) /* one unit in the top limb, which starts at bit 208 */
/* Multiplications are inlined: ten of them are 9 KiB, and the compiler interleaves them with the surrounding code. */
#define FE_FUNCTION VEC_INLINE

/* t / R mod p, open: the bound of num_carry's result is given above. */
VEC_INLINE num fe_reduce(wide t) {
  const vec p1 = vec_all(fe_p[1] + 1), p3 = vec_all(fe_p[3]), p4 = vec_all(fe_p[4]);
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    const vec q = t.limb[i];
    t.limb[i + 1] = vec_madd_low(vec_add(t.limb[i + 1], vec_shift_right(q, 52)), q, p1);
    t.limb[i + 2] = vec_madd_high(t.limb[i + 2], q, p1);
    t.limb[i + 3] = vec_madd_low(t.limb[i + 3], q, p3);
    t.limb[i + 4] = vec_madd_low(vec_madd_high(t.limb[i + 4], q, p3), q, p4);
    t.limb[i + 5] = vec_madd_high(t.limb[i + 5], q, p4);
  }
  num r;
  UNROLLED for (int i = 0; i < LIMBS; i++) r.limb[i] = t.limb[LIMBS + i];
  return r;
}

/* a mod p brought near p, whatever the sign of a: open in, tight and between p and 2.01 units out. For |a| < 16 units.
 *
 * h = floor of a in units, read from the top limb before the carries run; they can change a by less than 2^-38 units.
 * a - h 2^256 is then in [0, 1) but for that, h (2^256 - p) is below 2^-27 units, and p is added against negatives. */
VEC_INLINE num fe_fold(num a) {
  const vec h = vec_shift_right_signed(a.limb[4], 48);
  a = num_add_constant(a, fe_p);
  a.limb[0] = vec_add(a.limb[0], h);
  a.limb[1] = vec_sub(a.limb[1], vec_shift_left(h, 44));
  a.limb[3] = vec_sub(a.limb[3], vec_shift_left(h, 36));
  a.limb[4] = vec_sub(a.limb[4], vec_sub(vec_shift_left(h, 48), vec_shift_left(h, 16)));
  a = num_carry(a);
  num_assert(&a, FE_UNIT * 201 / 100);
  return a;
}

#endif
