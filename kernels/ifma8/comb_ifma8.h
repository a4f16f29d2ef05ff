/* The parts that all comb multiplications share: digits of the scalar, table look-up, tags. See
 * weierstrass_ifma8_comb.h for the idea and kernels/generate/curves.py for the layout of a table.
 *
 * Tags. Entry e of window w carries (2 e + 1) 2^(7 w) mod 2^52 - 1 as one more limb. The kernel adds the tags of what
 * it looked up, with the sign that it used, and the sum must be the scalar mod 2^52 - 1: if a digit, a sign, an index
 * or a window was wrong, the point can be on the curve and still be that of another scalar, and the tags detect that.
 *
 * Secret: the scalar. Nothing branches; no address depends on it.
 */
#ifndef KERNELS_IFMA8_COMB_IFMA8_H
#define KERNELS_IFMA8_COMB_IFMA8_H

#include "kernels/ifma8/limbs_ifma8.h"

typedef struct comb_scalar {
  num bits;        /* B, see weierstrass_ifma8_comb.h */
  num odd;         /* whichever of k and n - k is odd: the multiplier */
  vec_mask turned; /* lanes in which `odd` is n - k */
} comb_scalar;

typedef struct comb_digit {
  vec index;           /* 0 to 63: entry */
  vec_mask bit4, bit5; /* of the index */
  vec_mask negative;
} comb_digit;

/* k is tight, 0 < k < n. */
VEC_INLINE comb_scalar comb_recode(const num *k) {
  comb_scalar r;
  const num other = num_carry(num_sub(num_all(order_n), *k));
  r.turned = vec_equal(vec_and(k->limb[0], vec_all(1)), vec_zero());
  r.odd = num_select(r.turned, other, *k);
  /* (k + 2^W - 1) / 2 = (k - 1) / 2 + 2^(W - 1) */
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    r.bits.limb[i] = vec_shift_right(r.odd.limb[i], 1);
    if (i + 1 < LIMBS) {
      r.bits.limb[i] = vec_or(r.bits.limb[i], vec_and(vec_shift_left(r.odd.limb[i + 1], 51), vec_all(LIMB_MASK)));
    }
  }
  const int top = COMB_WINDOW_BITS * COMB_WINDOWS - 1;
  r.bits.limb[top / 52] = vec_add(r.bits.limb[top / 52], vec_all(UINT64_C(1) << top % 52));
  return r;
}

VEC_INLINE comb_digit comb_digit_of(const comb_scalar *scalar, int window) {
  const int bit = COMB_WINDOW_BITS * window, i = bit / 52, shift = bit % 52;
  vec value = vec_shift_right(scalar->bits.limb[i], shift);
  if (shift + COMB_WINDOW_BITS > 52 && i + 1 < LIMBS) {
    value = vec_or(value, vec_shift_left(scalar->bits.limb[i + 1], 52 - shift));
  }
  comb_digit r;
  /* B_w >= 64: entry B_w - 64; below: entry 63 - B_w, negative */
  const vec_mask positive = vec_any_bit(value, vec_all(COMB_ENTRIES));
  r.negative = (vec_mask)~positive;
  r.index = vec_and(vec_select(positive, value, vec_xor(value, vec_all(UINT64_MAX))), vec_all(COMB_ENTRIES - 1));
  r.bit4 = vec_any_bit(r.index, vec_all(16));
  r.bit5 = vec_any_bit(r.index, vec_all(32));
  return r;
}

/* entries[index] in each lane; all 64 are read. */
VEC_INLINE vec comb_lookup(const uint64_t entries[COMB_ENTRIES], const comb_digit *digit) {
  vec quarter[4];
  UNROLLED for (int i = 0; i < 4; i++) {
    quarter[i] = vec_lookup16(vec_load(entries + 16 * i), vec_load(entries + 16 * i + 8), digit->index);
  }
  return vec_select(digit->bit5, vec_select(digit->bit4, quarter[3], quarter[2]),
                    vec_select(digit->bit4, quarter[1], quarter[0]));
}

/* sum + tag, or sum - tag for a negative digit: at most COMB_WINDOWS 2^52 in size. */
VEC_INLINE vec comb_tag(vec sum, const uint64_t table[COMB_PARTS][COMB_ENTRIES], const comb_digit *digit) {
  const vec tag = comb_lookup(table[COMB_PARTS - 1], digit);
  return vec_select(digit->negative, vec_sub(sum, tag), vec_add(sum, tag));
}

/* Lanes where the tags sum up to k, or to n - k where k is even, mod 2^52 - 1; a number is the sum of its limbs there.
 * k is read from the caller's copy, not from the digits, so that the recoding is checked as well. */
VEC_INLINE vec_mask comb_tags_right(vec tags, const num *k) {
  const num wanted = comb_recode(k).odd;
  UNROLLED for (int i = 0; i < LIMBS; i++) tags = vec_sub(tags, wanted.limb[i]);
  /* above -(COMB_WINDOWS + LIMBS) 2^52: 128 times the modulus makes it positive */
  tags = vec_add(tags, vec_all(LIMB_MASK * 128));
  UNROLLED for (int i = 0; i < 2; i++) {
    tags = vec_add(vec_and(tags, vec_all(LIMB_MASK)), vec_shift_right(tags, 52));
  }
  return vec_equal(tags, vec_zero()) | vec_equal(tags, vec_all(LIMB_MASK));
}

#endif
