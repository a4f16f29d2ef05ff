/* Modular inversion in constant time, eight (or twice eight) at a time, by Bernstein-Yang division steps.
 *
 * Formula     f = m (odd), g = a. A step with the state delta (in halves, starting at 1/2) does
 *                 g odd and delta > 0:   delta, f, g = 1 - delta, g, (g - f) / 2
 *                 g odd:                 delta, f, g = 1 + delta, f, (g + f) / 2
 *                 g even:                delta, f, g = 1 + delta, f, g / 2
 *             After enough steps (curves.py, divstep_batches) g = 0 and f = +-1 whatever a was. Which step is taken
 *             depends only on the lowest bits, so 51 of them are run on one word per number and collected in a matrix,
 *             (f, g) = (u f + v g, q f + r g) / 2^51, that is then applied to all limbs. d and e, starting at 0 and 1,
 *             get the same matrix mod m and keep  f = d a,  g = e a  (times a known power of 2): at the end d = +-1/a.
 *             51 = 3 * 17: the innermost 17 steps pack the low bits of f (g), u (q) and v (r) into one word, so one
 *             addition serves all three.
 *             Source: Bernstein, Yang, "Fast constant-time gcd computation and modular inversion", CHES 2019; the
 *             half-delta start and its step count are Wuille's.
 * Lanes       one inversion per lane; limbs as in limbs_ifma8.h. A `pair` runs two independent inversions, because one
 *             alone waits for its own results most of the time.
 * Bounds      |f|, |g| <= m always. |u| + |v| <= 2^51, |q| + |r| <= 2^51. If |d|, |e| < 2 m before an update, then
 *             after it |d|, |e| < 2^51 2 m / 2^52 + m = 2 m. Other bounds are given where they apply.
 * Secret      everything but the counts of loops. Nothing branches.
 *
 * The inverse of 0 comes out as a multiple of m, that is as 0.
 */
#ifndef KERNELS_IFMA8_DIVSTEPS_IFMA8_H
#define KERNELS_IFMA8_DIVSTEPS_IFMA8_H

#include "kernels/ifma8/limbs_ifma8.h"

enum {
  DIVSTEP_INNER = 17, /* steps on packed words */
  DIVSTEP_OUTER = 3,  /* runs of them per batch: 51 steps, one less than a limb has bits */
  PACK_BITS = 21,     /* the packed fields are this far apart: each is at most 2^17 in size, and one bit for rounding */
};

typedef struct inversion {
  num f, g, d, e; /* signed */
  vec zeta;       /* -(delta + 1/2): negative where delta > 0 */
  const uint64_t *modulus;
  uint64_t modulus_inverse; /* -1/m mod 2^52 */
} inversion;

typedef struct divstep_matrix {
  vec u, v, q, r; /* signed */
} divstep_matrix;

/* a is tight and below m. */
VEC_INLINE void inversion_start(inversion *s, const num *a, const uint64_t modulus[LIMBS], uint64_t modulus_inverse) {
  s->f = num_all(modulus);
  s->g = *a;
  s->d = num_small(0);
  s->e = num_small(1);
  s->zeta = vec_all(UINT64_MAX);
  s->modulus = modulus;
  s->modulus_inverse = modulus_inverse;
}

/* The two upper fields of a packed word, as signed numbers. The field below each is at most 2^17 in size, so adding
 * half of a field's room before cutting rounds to the right one. */
VEC_INLINE void divstep_unpack(vec packed, vec *middle, vec *upper) {
  const vec half = vec_all(UINT64_C(1) << (PACK_BITS - 1));
  const vec rounded = vec_add(packed, half);
  *middle = vec_shift_right_signed(vec_shift_left(rounded, 64 - 2 * PACK_BITS), 64 - PACK_BITS);
  *upper = vec_shift_right_signed(vec_add(rounded, vec_shift_left(half, PACK_BITS)), 2 * PACK_BITS);
}

/* 17 steps for each of `count` independent states from the low bits of f and g.
 *
 * fuv = f + 2^21 u + 2^42 v and grs = g + 2^21 q + 2^42 r, with u = r = 2^17 at the start. A step halves the row of g
 * instead of doubling the row of f, so the entries come out scaled by 2^17, and they stay whole numbers all the time.
 * The low fields stay at most 2^17 in size: they start below that, and (|g| + |f|) / 2 is no more than the larger. */
VEC_INLINE void divstep_inner(int count, const vec f[], const vec g[], vec zeta[], divstep_matrix m[]) {
  const vec low = vec_all((UINT64_C(1) << DIVSTEP_INNER) - 1), one = vec_all(1);
  vec fuv[2], grs[2];
  UNROLLED for (int s = 0; s < count; s++) {
    fuv[s] = vec_add(vec_and(f[s], low), vec_all(UINT64_C(1) << (PACK_BITS + DIVSTEP_INNER)));
    grs[s] = vec_add(vec_and(g[s], low), vec_all(UINT64_C(1) << (2 * PACK_BITS + DIVSTEP_INNER)));
  }
  for (int step = 0; step < DIVSTEP_INNER; step++) {
    UNROLLED for (int s = 0; s < count; s++) {
      const vec_mask positive = vec_negative(zeta[s]); /* delta > 0 */
      const vec_mask odd = vec_any_bit(grs[s], one);
      const vec_mask swap = odd & positive;
      const vec signed_f = vec_select(positive, vec_sub(vec_zero(), fuv[s]), fuv[s]);
      const vec sum = vec_masked_add(odd, grs[s], signed_f);
      fuv[s] = vec_select(swap, grs[s], fuv[s]);
      grs[s] = vec_shift_right_signed(sum, 1);
      /* zeta - 1, or -zeta - 2 where f and g changed places */
      zeta[s] = vec_select(swap, vec_sub(vec_all(UINT64_MAX - 1), zeta[s]), vec_sub(zeta[s], one));
    }
  }
  UNROLLED for (int s = 0; s < count; s++) {
    divstep_unpack(fuv[s], &m[s].u, &m[s].v);
    divstep_unpack(grs[s], &m[s].q, &m[s].r);
  }
}

/* a b, of entries that fit 51 bits and a sign. */
VEC_INLINE divstep_matrix divstep_compose(divstep_matrix a, divstep_matrix b) {
  divstep_matrix r;
  r.u = vec_add(vec_multiply(a.u, b.u), vec_multiply(a.v, b.q));
  r.v = vec_add(vec_multiply(a.u, b.v), vec_multiply(a.v, b.r));
  r.q = vec_add(vec_multiply(a.q, b.u), vec_multiply(a.r, b.q));
  r.r = vec_add(vec_multiply(a.q, b.v), vec_multiply(a.r, b.r));
  return r;
}

/* t + factor a, exactly. factor is signed and at most 2^51 in size, a is signed; t has LIMBS + 1 limbs.
 *
 * vpmadd52 takes the low 52 bits of a negative x as x + 2^52: 2^52 times the other factor is taken off again. */
VEC_INLINE void signed_add_product(vec t[LIMBS + 1], vec factor, const num *a) {
  const vec_mask factor_negative = vec_negative(factor), a_negative = vec_negative(a->limb[LIMBS - 1]);
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    t[i] = vec_madd_low(t[i], factor, a->limb[i]);
    t[i + 1] = vec_masked_sub(factor_negative, vec_madd_high(t[i + 1], factor, a->limb[i]), a->limb[i]);
  }
  t[LIMBS] = vec_masked_sub(a_negative, t[LIMBS], vec_and(factor, vec_all(LIMB_MASK)));
}

/* (x f + y g) / 2^51, which is whole. */
VEC_INLINE num divstep_apply(vec x, vec y, const num *f, const num *g) {
  vec t[LIMBS + 1];
  UNROLLED for (int i = 0; i <= LIMBS; i++) t[i] = vec_zero();
  signed_add_product(t, x, f);
  signed_add_product(t, y, g);
  num r; /* t / 2^51 = t0 / 2^51 + 2 (t1 + 2^52 t2 + ...) */
  UNROLLED for (int i = 0; i < LIMBS; i++) r.limb[i] = vec_add(t[i + 1], t[i + 1]);
  r.limb[0] = vec_add(r.limb[0], vec_shift_right_signed(t[0], DIVSTEP_INNER * DIVSTEP_OUTER));
  return num_carry(r);
}

/* (x d + y e) / 2^52 mod m: a multiple of m, below 2^52 m, makes the lowest limb 0. */
VEC_INLINE num divstep_apply_modular(vec x, vec y, const num *d, const num *e, const inversion *s) {
  vec t[LIMBS + 1];
  UNROLLED for (int i = 0; i <= LIMBS; i++) t[i] = vec_zero();
  signed_add_product(t, x, d);
  signed_add_product(t, y, e);
  const vec multiple = vec_madd_low(vec_zero(), t[0], vec_all(s->modulus_inverse));
  UNROLLED for (int i = 0; i < LIMBS; i++) {
    t[i] = vec_madd_low(t[i], multiple, vec_all(s->modulus[i]));
    t[i + 1] = vec_madd_high(t[i + 1], multiple, vec_all(s->modulus[i]));
  }
  num r;
  UNROLLED for (int i = 0; i < LIMBS; i++) r.limb[i] = t[i + 1];
  r.limb[0] = vec_add(r.limb[0], vec_shift_right_signed(t[0], 52));
  return num_carry(r);
}

/* 51 steps of `count` inversions. */
VEC_INLINE void divstep_batch(int count, inversion s[]) {
  vec f[2], g[2], zeta[2];
  divstep_matrix all[2], last[2];
  UNROLLED for (int i = 0; i < count; i++) {
    f[i] = vec_or(s[i].f.limb[0], vec_shift_left(s[i].f.limb[1], 52));
    g[i] = vec_or(s[i].g.limb[0], vec_shift_left(s[i].g.limb[1], 52));
    zeta[i] = s[i].zeta;
  }
  UNROLLED for (int run = 0; run < DIVSTEP_OUTER; run++) {
    divstep_inner(count, f, g, zeta, last);
    UNROLLED for (int i = 0; i < count; i++) {
      all[i] = run == 0 ? last[i] : divstep_compose(last[i], all[i]);
      /* Of the 64 low bits, 64 - 17 and then 64 - 34 are still those of f and g: enough for the 17 looked at. */
      const vec sum_f = vec_add(vec_multiply(last[i].u, f[i]), vec_multiply(last[i].v, g[i]));
      const vec sum_g = vec_add(vec_multiply(last[i].q, f[i]), vec_multiply(last[i].r, g[i]));
      f[i] = vec_shift_right(sum_f, DIVSTEP_INNER);
      g[i] = vec_shift_right(sum_g, DIVSTEP_INNER);
    }
  }
  UNROLLED for (int i = 0; i < count; i++) {
    const divstep_matrix m = all[i];
    const num old_f = s[i].f, old_d = s[i].d;
    s[i].zeta = zeta[i];
    s[i].f = divstep_apply(m.u, m.v, &old_f, &s[i].g);
    s[i].g = divstep_apply(m.q, m.r, &old_f, &s[i].g);
    s[i].d = divstep_apply_modular(m.u, m.v, &old_d, &s[i].e, &s[i]);
    s[i].e = divstep_apply_modular(m.q, m.r, &old_d, &s[i].e, &s[i]);
  }
}

/* d with the sign of f, plus 2 m: tight, between 0 and 4 m, and the inverse times 2^-batches mod m, because each batch
 * divided f by 2^51 but d by 2^52. The constants *_inverse_factor put that right. */
VEC_INLINE num inversion_result(const inversion *s) {
  num m2 = num_all(s->modulus);
  m2 = num_add(m2, m2);
  return num_carry(num_add(num_negate_if(vec_negative(s->f.limb[LIMBS - 1]), s->d), m2));
}

/* Runs one or two inversions to their end. */
VEC_INLINE void inversion_run(int count, inversion s[], int batches) {
  for (int batch = 0; batch < batches; batch++) divstep_batch(count, s);
}

#endif
