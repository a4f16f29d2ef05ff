/* Arithmetic mod n, the order of a curve: the few multiplications that compute s from k, r, d and the message.
 *
 * Formula     Montgomery with R = 2^(52 LIMBS); n has no special form. order_mul(a, b) = a b / R mod n.
 * Lanes       limbs_ifma8.h.
 * Bounds      for tight a < A n and b < B n the result is tight and below (A B n / R + 1) n. n / R is below 1/16 for
 *             P-256, 1/255 for Ed25519 and 2^-32 for P-384: with A, B <= 4 the result is below 2 n.
 * Secret      all but n. Nothing branches.
 */
#ifndef KERNELS_IFMA8_ORDER_IFMA8_H
#define KERNELS_IFMA8_ORDER_IFMA8_H

#include "kernels/ifma8/limbs_ifma8.h"

/* t / R mod n, tight. */
VEC_INLINE num order_reduce(wide t) {
  const vec inverse = vec_all(ORDER_N_INVERSE);
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    const vec q = vec_madd_low(vec_zero(), t.limb[i], inverse);
    UNROLLED for (int j = 0; j < LIMBS; j++) {
      t.limb[i + j] = vec_madd_low(t.limb[i + j], q, vec_all(order_n[j]));
      t.limb[i + j + 1] = vec_madd_high(t.limb[i + j + 1], q, vec_all(order_n[j]));
    }
    t.limb[i + 1] = vec_add(t.limb[i + 1], vec_shift_right(t.limb[i], 52));
  }
  num r;
  UNROLLED for (int i = 0; i < LIMBS; i++) r.limb[i] = t.limb[LIMBS + i];
  return num_carry(r);
}

/* Not inlined: it is called a dozen times per batch and is long. */
static __attribute__((noinline, unused)) num order_mul(const num *a, const num *b) {
  num r = order_reduce(wide_add_product(wide_zero(), a, b));
  num_assert(&r, 2 * order_n[LIMBS - 1] + 2);
  return r;
}

#endif
