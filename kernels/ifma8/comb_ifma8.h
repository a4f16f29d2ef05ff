/* What every comb multiplication shares: digits of the scalar, look-up, tags. See weierstrass_ifma8_comb.h for the idea
 * and kernels/generate/curves.py for the layout of a table.
 *
 * Tags. Entry e of window w carries (2 e + 1) 2^(7 w) mod 2^52 - 1 as one more limb. The kernel adds the tags of what
 * it looked up, with the sign that it used, and the sum must be the scalar mod 2^52 - 1: the point can be on the curve
 * and still be that of another scalar, when a digit, a sign, an index or a window went wrong, and this finds it.
 *
 * Secret: the scalar. Nothing branches; no address depends on it.
 */
#ifndef KERNELS_IFMA8_COMB_IFMA8_H
#define KERNELS_IFMA8_COMB_IFMA8_H

#include "kernels/ifma8/limbs_ifma8.h"

typedef struct comb_scalar {
  num bits;         /* B, see weierstrass_ifma8_comb.h */
  num odd;          /* the odd one of k and n - k: what is multiplied */
  vec8_mask turned; /* lanes where it is n - k */
} comb_scalar;

typedef struct comb_digit {
  vec8 index;           /* 0 to 63: entry */
  vec8_mask bit4, bit5; /* of the index */
  vec8_mask negative;
} comb_digit;

/* k is tight, 0 < k < n. */
VEC8_INLINE comb_scalar comb_recode(const num *k) {
  comb_scalar r;
  const num other = num_carry(num_sub(num_all(order_n), *k));
  r.turned = vec8_equal(vec8_and(k->limb[0], vec8_all(1)), vec8_zero());
  r.odd = num_select(r.turned, other, *k);
  /* (k + 2^W - 1) / 2 = (k - 1) / 2 + 2^(W - 1) */
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    r.bits.limb[i] = vec8_shift_right(r.odd.limb[i], 1);
    if (i + 1 < LIMBS) {
      r.bits.limb[i] = vec8_or(r.bits.limb[i], vec8_and(vec8_shift_left(r.odd.limb[i + 1], 51), vec8_all(LIMB_MASK)));
    }
  }
  const int top = COMB_WINDOW_BITS * COMB_WINDOWS - 1;
  r.bits.limb[top / 52] = vec8_add(r.bits.limb[top / 52], vec8_all(UINT64_C(1) << top % 52));
  return r;
}

VEC8_INLINE comb_digit comb_digit_of(const comb_scalar *scalar, int window) {
  const int bit = COMB_WINDOW_BITS * window, i = bit / 52, shift = bit % 52;
  vec8 value = vec8_shift_right(scalar->bits.limb[i], shift);
  if (shift + COMB_WINDOW_BITS > 52 && i + 1 < LIMBS) {
    value = vec8_or(value, vec8_shift_left(scalar->bits.limb[i + 1], 52 - shift));
  }
  comb_digit r;
  /* B_w >= 64: entry B_w - 64; below: entry 63 - B_w, negative */
  const vec8_mask positive = vec8_any_bit(value, vec8_all(COMB_ENTRIES));
  r.negative = (vec8_mask)~positive;
  r.index = vec8_and(vec8_select(positive, value, vec8_xor(value, vec8_all(UINT64_MAX))), vec8_all(COMB_ENTRIES - 1));
  r.bit4 = vec8_any_bit(r.index, vec8_all(16));
  r.bit5 = vec8_any_bit(r.index, vec8_all(32));
  return r;
}

/* entries[index] in each lane; all 64 are read. */
VEC8_INLINE vec8 comb_lookup(const uint64_t entries[COMB_ENTRIES], const comb_digit *digit) {
  vec8 quarter[4];
  UNROLLED for (int i = 0; i < 4; i++) {
    quarter[i] = vec8_lookup16(vec8_load(entries + 16 * i), vec8_load(entries + 16 * i + 8), digit->index);
  }
  return vec8_select(digit->bit5, vec8_select(digit->bit4, quarter[3], quarter[2]),
                     vec8_select(digit->bit4, quarter[1], quarter[0]));
}

/* sum + tag, or sum - tag for a negative digit: at most COMB_WINDOWS 2^52 in size. */
VEC8_INLINE vec8 comb_tag(vec8 sum, const uint64_t table[COMB_PARTS][COMB_ENTRIES], const comb_digit *digit) {
  const vec8 tag = comb_lookup(table[COMB_PARTS - 1], digit);
  return vec8_select(digit->negative, vec8_sub(sum, tag), vec8_add(sum, tag));
}

/* Lanes where the tags sum up to k, or to n - k where k is even, mod 2^52 - 1; a number is the sum of its limbs there.
 * k is taken from where the caller keeps it, not from the digits, so that the recoding is checked as well. */
VEC8_INLINE vec8_mask comb_tags_right(vec8 tags, const num *k) {
  const num wanted = comb_recode(k).odd;
  UNROLLED for (int i = 0; i < LIMBS; i++) tags = vec8_sub(tags, wanted.limb[i]);
  /* above -(COMB_WINDOWS + LIMBS) 2^52: 128 times the modulus makes it positive */
  tags = vec8_add(tags, vec8_all(LIMB_MASK * 128));
  UNROLLED for (int i = 0; i < 2; i++) {
    tags = vec8_add(vec8_and(tags, vec8_all(LIMB_MASK)), vec8_shift_right(tags, 52));
  }
  return vec8_equal(tags, vec8_zero()) | vec8_equal(tags, vec8_all(LIMB_MASK));
}

#endif
