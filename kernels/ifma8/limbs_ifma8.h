/* Numbers of LIMBS limbs of 52 bits, one number per lane: the base of all curve kernels.
 *
 *   value of lane l = sum over i of  2^(52 i) * limb[i].lane[l]
 *
 * Define LIMBS before including (5 for P-256 and Curve25519, 8 for P-384). The states a number can be in:
 *
 *   tight    limbs 0 .. LIMBS-2 in [0, 2^52), the top limb in [0, 2^52): the value is not negative. Multiplications
 *            require this of both factors, because vpmadd52 reads only the low 52 bits of a limb.
 *   signed   like tight, but the top limb is a signed 64-bit number: the sign of the value.
 *   open     every limb is any signed 64-bit number of less than 2^60 in size: sums and differences whose carries have
 *            not run yet. num_carry makes it signed, and tight if the value is not negative and below 2^(52 LIMBS).
 *
 * Every number here is secret in some kernel: no branch and no address depends on a limb. Loops run over public
 * constants and are unrolled.
 *
 * With BOUND_CHECKS defined, every bound that a comment proves is also asserted here, and the process aborts when one
 * does not hold. Such a build branches on secrets and is for tests only.
 */
#ifndef KERNELS_IFMA8_LIMBS_IFMA8_H
#define KERNELS_IFMA8_LIMBS_IFMA8_H

#include "kernels/ifma8/vec.h"

#ifndef LIMBS
#error "define LIMBS (how many limbs of 52 bits a number has) before including limbs_ifma8.h"
#endif

#define LIMB_MASK ((UINT64_C(1) << 52) - 1)
#define WORDS_OF_LIMBS ((52 * LIMBS) / 64) /* 64-bit words of a field element: 4 for 5 limbs, 6 for 8 */
#define UNROLLED _Pragma("GCC unroll 16")

typedef struct num {
  vec limb[LIMBS];
} num;

/* Accumulators of products: each sums at most 2 * 2 * LIMBS terms below 2^52 from two products and a few from the
 * reduction, so it stays below 2^58. */
typedef struct wide {
  vec limb[2 * LIMBS];
} wide;

/* With BOUND_CHECKS: a is tight and its top limb is at most `top`; every limb of an open number has room to spare. */
VEC_INLINE void num_assert(const num *a, uint64_t top) {
  for (int i = 0; i < LIMBS; i++) {
    VEC_ASSERT_WITHIN(a->limb[i], 0, (int64_t)(i == LIMBS - 1 ? top : LIMB_MASK));
  }
  (void)a, (void)top;
}
VEC_INLINE void num_assert_open(const num *a) {
  for (int i = 0; i < LIMBS; i++) VEC_ASSERT_WITHIN(a->limb[i], -(INT64_C(1) << 60), INT64_C(1) << 60);
  (void)a;
}

/* The same public constant in every lane. */
VEC_INLINE num num_all(const uint64_t limbs[LIMBS]) {
  num r;
  UNROLLED for (int i = 0; i < LIMBS; i++) r.limb[i] = vec_all(limbs[i]);
  return r;
}

VEC_INLINE num num_small(uint64_t x) {
  num r;
  r.limb[0] = vec_all(x);
  UNROLLED for (int i = 1; i < LIMBS; i++) r.limb[i] = vec_zero();
  return r;
}

/* Limb by limb, carries not run: the result is open. */
VEC_INLINE num num_add(num a, num b) {
  UNROLLED for (int i = 0; i < LIMBS; i++) a.limb[i] = vec_add(a.limb[i], b.limb[i]);
  return a;
}
VEC_INLINE num num_sub(num a, num b) {
  UNROLLED for (int i = 0; i < LIMBS; i++) a.limb[i] = vec_sub(a.limb[i], b.limb[i]);
  return a;
}
VEC_INLINE num num_add_constant(num a, const uint64_t limbs[LIMBS]) {
  return num_add(a, num_all(limbs));
}
/* -a in the lanes of the mask; open. */
VEC_INLINE num num_negate_if(vec_mask mask, num a) {
  UNROLLED for (int i = 0; i < LIMBS; i++) a.limb[i] = vec_select(mask, vec_sub(vec_zero(), a.limb[i]), a.limb[i]);
  return a;
}
VEC_INLINE num num_select(vec_mask mask, num if_set, num if_clear) {
  UNROLLED for (int i = 0; i < LIMBS; i++) if_clear.limb[i] = vec_select(mask, if_set.limb[i], if_clear.limb[i]);
  return if_clear;
}

/* Runs the carries: open to signed (tight, if the value is in [0, 2^(52 LIMBS))). */
VEC_INLINE num num_carry(num a) {
  const vec mask = vec_all(LIMB_MASK);
  num_assert_open(&a);
  UNROLLED for (int i = 0; i + 1 < LIMBS; i++) {
    a.limb[i + 1] = vec_add(a.limb[i + 1], vec_shift_right_signed(a.limb[i], 52));
    a.limb[i] = vec_and(a.limb[i], mask);
  }
  return a;
}

/* a - m where that is not negative, else a; a is tight, m a public constant. Brings [0, 2 m) to [0, m). */
VEC_INLINE num num_reduce_once(num a, const uint64_t m[LIMBS]) {
  num reduced = num_carry(num_sub(a, num_all(m)));
  return num_select(vec_negative(reduced.limb[LIMBS - 1]), a, reduced);
}

/* Lanes where a < m; a is tight. */
VEC_INLINE vec_mask num_below(num a, const uint64_t m[LIMBS]) {
  num difference = num_carry(num_sub(a, num_all(m)));
  return vec_negative(difference.limb[LIMBS - 1]);
}

/* Lanes where every limb is 0. */
VEC_INLINE vec_mask num_is_zero(num a) {
  vec any = a.limb[0];
  UNROLLED for (int i = 1; i < LIMBS; i++) any = vec_or(any, a.limb[i]);
  return vec_equal(any, vec_zero());
}

VEC_INLINE wide wide_zero(void) {
  wide t;
  UNROLLED for (int i = 0; i < 2 * LIMBS; i++) t.limb[i] = vec_zero();
  return t;
}

/* t + a b; a and b are tight. */
VEC_INLINE wide wide_add_product(wide t, const num *a, const num *b) {
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    UNROLLED for (int j = 0; j < LIMBS; j++) {
      t.limb[i + j] = vec_madd_low(t.limb[i + j], a->limb[i], b->limb[j]);
      t.limb[i + j + 1] = vec_madd_high(t.limb[i + j + 1], a->limb[i], b->limb[j]);
    }
  }
  return t;
}

/* a^2: every product of two different limbs once, doubled, then the squares of the limbs. a is tight. */
VEC_INLINE wide wide_square(const num *a) {
  wide t = wide_zero();
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    UNROLLED for (int j = i + 1; j < LIMBS; j++) {
      t.limb[i + j] = vec_madd_low(t.limb[i + j], a->limb[i], a->limb[j]);
      t.limb[i + j + 1] = vec_madd_high(t.limb[i + j + 1], a->limb[i], a->limb[j]);
    }
  }
  UNROLLED for (int i = 1; i < 2 * LIMBS - 1; i++) t.limb[i] = vec_add(t.limb[i], t.limb[i]);
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    t.limb[2 * i] = vec_madd_low(t.limb[2 * i], a->limb[i], a->limb[i]);
    t.limb[2 * i + 1] = vec_madd_high(t.limb[2 * i + 1], a->limb[i], a->limb[i]);
  }
  return t;
}

/* Convert between lanes of 64-bit words, least significant first, and limbs. All shifts are public. */
VEC_INLINE num num_from_words(uint64_t words[8][WORDS_OF_LIMBS]) {
  num r;
  for (int i = 0; i < LIMBS; i++) {
    const int word = 52 * i / 64, shift = 52 * i % 64;
    uint64_t limb[8];
    for (int lane = 0; lane < 8; lane++) {
      uint64_t x = words[lane][word] >> shift;
      if (shift > 12 && word + 1 < WORDS_OF_LIMBS) x |= words[lane][word + 1] << (64 - shift);
      limb[lane] = x & LIMB_MASK;
    }
    r.limb[i] = vec_load(limb);
  }
  return r;
}

/* a is tight and below 2^(64 WORDS_OF_LIMBS). */
VEC_INLINE void num_to_words(uint64_t words[8][WORDS_OF_LIMBS], num a) {
  uint64_t limb[LIMBS][8];
  for (int i = 0; i < LIMBS; i++) vec_store(limb[i], a.limb[i]);
  for (int word = 0; word < WORDS_OF_LIMBS; word++) {
    const int i = 64 * word / 52, shift = 64 * word % 52;
    for (int lane = 0; lane < 8; lane++) {
      uint64_t x = limb[i][lane] >> shift | limb[i + 1][lane] << (52 - shift);
      if (shift > 40) x |= limb[i + 2][lane] << (104 - shift);
      words[lane][word] = x;
    }
  }
}

#ifdef TESTING_HOOKS
/* Flips a bit of one lane. */
static __attribute__((unused)) void num_flip(num *a, unsigned lane, unsigned bit) {
  uint64_t limb[8];
  const unsigned i = bit / 52 % LIMBS;
  vec_store(limb, a->limb[i]);
  limb[lane] ^= UINT64_C(1) << bit % 52;
  a->limb[i] = vec_load(limb);
}
#endif

#endif
