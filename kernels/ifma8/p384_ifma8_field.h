/* Arithmetic mod p = 2^384 - c, c = 2^128 + 2^96 - 2^32 + 1 (P-384), eight elements at a time.
 *
 * Formula     Montgomery with R = 2^416: fe_mul(a, b) = a b / R mod p. A reduction row *subtracts* q p, that is it adds
 *             q c, which has three limbs, and takes q 2^384 off with shifts: 6 vpmadd52 instead of 17. The quotient
 *             digit is q = t0 / p mod 2^52; 1/p = -(1 + 2^32) mod 2^52.
 * Lanes       limbs_ifma8.h, LIMBS = 8: 416 bits for numbers of 384, 32 bits to spare.
 * Bounds      counted in units of 2^384, a hair more than p. For tight a < A units and b < B units, a b - Q p with
 *             0 <= Q < R is above -R p and below A B 2^768; with p added after the division the result is tight and
 *             below A B / 2^32 + 1 units. That is less than what P-256 has (p256_ifma8_field.h), so every bound that
 *             weierstrass_ifma8_comb.h proves for P-256 holds.
 * Secret      every element. Nothing branches.
 */
#ifndef KERNELS_IFMA8_P384_IFMA8_FIELD_H
#define KERNELS_IFMA8_P384_IFMA8_FIELD_H

#define LIMBS 8
#include "kernels/ifma8/limbs_ifma8.h"
#include "p384_constants.h"

#define FE_UNIT (UINT64_C(1) << 20) /* one unit in the top limb, which starts at bit 364 */
/* Multiplications are called: ten of them inlined are 27 KiB, which does not fit into the processor's cache of decoded
 * instructions, and then the speed depends on where the linker puts them (28 and 46 us per batch were measured). */
#define FE_FUNCTION static __attribute__((noinline))

/* t / R mod p, open, and positive. The accumulators from limb 7 on become signed: q 2^384 is taken off them.
 *
 * The latency from one row's lowest limb to the next one's limits this kernel, so that path is kept short: the quotient
 * is one multiplication, the two products that reach the next limb run in parallel, and the carry does not wait for the
 * quotient: adding q c makes the low 52 bits of a limb t 0, so what it carries is t / 2^52 rounded up.
 */
VEC_INLINE num fe_reduce(wide t) {
  const vec c0 = vec_all(0xfffff00000001), c1 = vec_all(0x00fffffffffff), c2 = vec_all(0x0000001000000);
  const vec inverse = vec_all(LIMB_MASK & -((UINT64_C(1) << 32) + 1)), mask = vec_all(LIMB_MASK);
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    const vec q = vec_madd_low(vec_zero(), t.limb[i], inverse);
    const vec carry = vec_shift_right_signed(vec_add(t.limb[i], mask), 52);
    t.limb[i + 1] = vec_add(vec_madd_high(vec_add(t.limb[i + 1], carry), q, c0), vec_madd_low(vec_zero(), q, c1));
    t.limb[i + 2] = vec_madd_low(vec_madd_high(t.limb[i + 2], q, c1), q, c2);
    t.limb[i + 3] = vec_madd_high(t.limb[i + 3], q, c2);
    t.limb[i + 7] = vec_sub(t.limb[i + 7], vec_and(vec_shift_left(q, 20), mask)); /* 384 = 7 * 52 + 20 */
    t.limb[i + 8] = vec_sub(t.limb[i + 8], vec_shift_right(q, 32));
  }
  num r;
  UNROLLED for (int i = 0; i < LIMBS; i++) r.limb[i] = t.limb[LIMBS + i];
  return num_add_constant(r, fe_p);
}

/* a mod p brought near p, whatever the sign of a: open in, tight and between p - 2^-12 and 2.01 units out. For |a| < 16
 * units.
 *
 * h = floor of a in units, read from the top limb before the carries run; they can change a by less than 2^-12 units.
 * a - h 2^384 is then in [0, 1) but for that, h c is below 2^-250 units, and p is added against negatives. */
VEC_INLINE num fe_fold(num a) {
  const vec h = vec_shift_right_signed(a.limb[7], 20);
  a = num_add_constant(a, fe_p);
  a.limb[0] = vec_add(a.limb[0], vec_sub(h, vec_shift_left(h, 32)));
  a.limb[1] = vec_add(a.limb[1], vec_shift_left(h, 44));
  a.limb[2] = vec_add(a.limb[2], vec_shift_left(h, 24));
  a.limb[7] = vec_sub(a.limb[7], vec_shift_left(h, 20));
  a = num_carry(a);
  num_assert(&a, FE_UNIT * 201 / 100);
  return a;
}

#endif
