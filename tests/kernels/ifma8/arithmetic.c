/* The field, order, inversion and comb of one curve as functions of plain arrays, for tests against Python's integers.
 *
 * Compiled by conftest.py with -DCURVE_p256, -DCURVE_p384 or -DCURVE_ed25519. Numbers are uint64_t[LIMBS][8], limb by
 * limb for the eight lanes; points are four numbers in a row. */
#if defined(CURVE_ed25519)
#include "kernels/ifma8/curve25519_ifma8_field.h"
#include "kernels/ifma8/edwards_ifma8_comb.h"
#define TABLE ed25519_comb
#elif defined(CURVE_p384)
#include "kernels/ifma8/p384_ifma8_field.h"
#include "kernels/ifma8/weierstrass_ifma8_comb.h"
#define TABLE p384_comb
#else
#include "kernels/ifma8/p256_ifma8_field.h"
#include "kernels/ifma8/weierstrass_ifma8_comb.h"
#define TABLE p256_comb
#endif
#include "kernels/ifma8/divsteps_ifma8.h"
#include "kernels/ifma8/order_ifma8.h"

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t lanes_of_number[LIMBS][8];

static num load(lanes_of_number from) {
  num a;
  for (int i = 0; i < LIMBS; i++) a.limb[i] = vec_load(from[i]);
  return a;
}

static void store(lanes_of_number to, num a) {
  for (int i = 0; i < LIMBS; i++) vec_store(to[i], a.limb[i]);
}

EXPORT void field_multiply(lanes_of_number a, lanes_of_number b, lanes_of_number r) {
  const num x = load(a), y = load(b);
  store(r, fe_mul(&x, &y));
}

EXPORT void field_square(lanes_of_number a, lanes_of_number r) {
  const num x = load(a);
  store(r, fe_square(&x));
}

/* Brings an open number of either sign near p. */
EXPORT void field_fold(lanes_of_number a, lanes_of_number r) {
#ifdef CURVE_ed25519
  store(r, fe_close_signed(load(a)));
#else
  store(r, fe_fold(load(a)));
#endif
}

EXPORT void order_multiply(lanes_of_number a, lanes_of_number b, lanes_of_number r) {
  const num x = load(a), y = load(b);
  store(r, order_mul(&x, &y));
}

EXPORT void carry(lanes_of_number a, lanes_of_number r) {
  store(r, num_carry(load(a)));
}

EXPORT void reduce_once_order(lanes_of_number a, lanes_of_number r) {
  store(r, num_reduce_once(load(a), order_n));
}

/* 2^-batches / a mod p and mod n, up to multiples of them: what inversion_result gives. */
EXPORT void invert(lanes_of_number mod_p, lanes_of_number mod_n, lanes_of_number r_p, lanes_of_number r_n) {
  inversion pair[2];
  const num a = load(mod_p), b = load(mod_n);
  inversion_start(&pair[0], &a, fe_p, FE_P_INVERSE);
  inversion_start(&pair[1], &b, order_n, ORDER_N_INVERSE);
  inversion_run(2, pair, DIVSTEP_BATCHES);
  store(r_p, inversion_result(&pair[0]));
  store(r_n, inversion_result(&pair[1]));
  inversion alone;
  inversion_start(&alone, &a, fe_p, FE_P_INVERSE);
  inversion_run(1, &alone, DIVSTEP_BATCHES);
  const num difference = num_sub(inversion_result(&alone), inversion_result(&pair[0]));
  if (num_is_zero(difference) != 0xff) store(r_p, num_small(0));
}

EXPORT void words_to_limbs(uint64_t words[8][WORDS_OF_LIMBS], lanes_of_number r, uint64_t back[8][WORDS_OF_LIMBS]) {
  const num a = num_from_words(words);
  store(r, a);
  num_to_words(back, a);
}

EXPORT unsigned multiply_base(lanes_of_number k, lanes_of_number coordinates[4]) {
  const num scalar = load(k);
  const comb_scalar digits = comb_recode(&scalar);
  point sum;
  const unsigned good = comb_multiply(TABLE, &scalar, &digits, &sum);
  for (int i = 0; i < 4; i++) store(coordinates[i], (&sum.x)[i]);
  return good;
}

EXPORT unsigned on_curve(lanes_of_number coordinates[4]) {
  point a;
  for (int i = 0; i < 4; i++) (&a.x)[i] = load(coordinates[i]);
  return point_on_curve(&a);
}
