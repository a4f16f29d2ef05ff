/* Public keys of X25519 (RFC 7748, 6.1), eight at a time.
 *
 * Formula     u(k 9) = (Z + Y) / (Z - Y) for k B = (X : Y : Z) on Ed25519, whose base point B is the 9 of Curve25519:
 *             the comb of the signatures, and no ladder. The point and its negative have one u, so which of the two the
 *             comb has made does not matter. k is clamped, so it lies in 2^254 .. 2^255 and is a multiple of 8;
 *             mod n it is not 0, because the first common multiple of 8 and n is 8 n > 2^255.
 * Lanes       lane i is key i.
 * Bounds      in units of 2^255: Y, Z < 1.01, so Z - Y + 2 p is between 0.98 and 3.01, and Z + Y below 2.02.
 * Secret      k and everything made of it but u. Nothing branches.
 *
 * The check: the point is on the curve and its tags are those of k. A wrong public key would reveal nothing, but the
 * handshake would fail.
 */
#include <string.h>

#include "kernels/ifma8/curve25519_ifma8_field.h"
#include "kernels/ifma8/divsteps_ifma8.h"
#include "kernels/ifma8/edwards_ifma8_comb.h"
#include "kernels/ifma8/order_ifma8.h"
#include "kernels/x25519.h"

/* Reduces clamped scalars mod n. */
static num scalars_mod_order(const uint8_t private_keys[X25519_LANES][X25519_BYTES]) {
  uint64_t words[8][WORDS_OF_LIMBS];
  for (int i = 0; i < 8; i++) {
    memcpy(words[i], private_keys[i], X25519_BYTES);
    words[i][0] &= ~UINT64_C(7);
    words[i][3] = (words[i][3] & (UINT64_MAX >> 1)) | UINT64_C(1) << 62;
  }
  const num one = num_small(1), r2 = num_all(order_r2), k = num_from_words(words); /* below 2^255, that is 8 n */
  const num k_montgomery = order_mul(&k, &r2);                                     /* below 2 n */
  return num_reduce_once(order_mul(&k_montgomery, &one), order_n);
}

/* Z - Y, below p. */
static num denominator(const point *sum) {
  num a = num_carry(num_add_constant(num_sub(sum->z, sum->y), fe_2p));
  UNROLLED for (int i = 0; i < 3; i++) a = num_reduce_once(a, fe_p);
  return a;
}

uint8_t x25519_public_ifma8(uint8_t public_keys[X25519_LANES][X25519_BYTES],
                            const uint8_t private_keys[X25519_LANES][X25519_BYTES]) {
  const num k = scalars_mod_order(private_keys), factor = num_all(fe_inverse_factor);
  const comb_scalar scalar = comb_recode(&k);
  point sum;
  const vec_mask good = comb_multiply(ed25519_comb, &k, &scalar, &sum) & point_on_curve(&sum);

  inversion inversion;
  const num below = denominator(&sum), above = num_carry(num_add(sum.z, sum.y));
  inversion_start(&inversion, &below, fe_p, FE_P_INVERSE);
  inversion_run(1, &inversion, DIVSTEP_BATCHES);
  const num result = inversion_result(&inversion), inverse = fe_mul(&result, &factor);

  uint64_t words[8][WORDS_OF_LIMBS];
  num_to_words(words, num_reduce_once(fe_mul(&above, &inverse), fe_p));
  memcpy(public_keys, words, sizeof(words));
  return good;
}
