/* Ed25519 signatures (RFC 8032, 5.1.6), eight at a time.
 *
 * Formula     r = SHA-512(prefix || M) mod n,   R = r B,   h = SHA-512(R || A || M) mod n,   S = r + h a mod n;
 *             signature = encoding of R (y, with the lowest bit of x on top), then S, both little-endian.
 * Lanes       lane i is operation i, with its own key and message. Lanes without an operation sign the empty message
 *             with a key of zeros.
 * Bounds      order_mul gives less than 2 n for factors below A n and B n with A B <= 256. Other bounds are given
 *             where they apply.
 * Secret      a, prefix, r and everything before R and S. Branches depend on the number of operations and the lengths
 *             of the messages, which are public, and at the very end on which lanes passed the check.
 *
 * The check, before anything is released. Ed25519 is deterministic: two signatures of one message that differ by a
 * fault in r, R or h reveal the key, even if both are valid. So both hashes and all scalar arithmetic are done twice,
 * the second time starting again from key and message and from the bytes that would be released, and must agree:
 *   1. r, computed again, is the r of the first time
 *   2. S < n and S = r + h a mod n, with h computed again from the released R
 *   3. y Z = Y and x Z = +-X, with y and the sign of x from the released R     (R is the affine form of the point)
 *   4. (X, Y, Z, T) is on the curve                                            (the additions went right)
 *   5. the tags of the added entries sum up to r                               (it is the point of r: comb_ifma8.h)
 *
 * What it does not detect: a fault in the stored key or in the message before the first hash (software would sign with
 * it too), and faults that cancel each other. A lane that fails is KERNEL_FAULT and is redone in software.
 */
#include <string.h>

#include "kernels/ifma8/curve25519_ifma8_field.h"
#include "kernels/ifma8/divsteps_ifma8.h"
#include "kernels/ifma8/edwards_ifma8_comb.h"
#include "kernels/ifma8/order_ifma8.h"
#include "kernels/ifma8/sha512_ifma8.h"
#include "kernels/ifma8/sign_ifma8.h"
#include "kernels/key_internal.h"
#include "kernels/secret_flow.h"
#include "kernels/testing_hooks.h"
#include "kernels/workspace_internal.h"

enum { SCALAR_BYTES = 32, DIGEST_WORDS = 8 };

/* Overlays the workspace: all of it is secret until the check has passed. */
typedef struct ed25519_work {
  sha512_work hash;
  uint64_t digest_words[8][DIGEST_WORDS]; /* little-endian numbers */
  uint64_t words[8][WORDS_OF_LIMBS];
  num r, r_again, h, a, x, y;
  point sum;
  vec_mask turned;
  inversion inversion;
  uint8_t signatures[8][2 * SCALAR_BYTES]; /* little-endian, R then S */
} ed25519_work;
_Static_assert(sizeof(ed25519_work) <= KERNEL_AREA_SIZE, "the workspace is too small");

static const uint8_t no_key[SCALAR_BYTES];

/* 260 bits of a digest from bit `from` on. */
VEC_INLINE num digest_part(uint64_t words[8][DIGEST_WORDS], int from) {
  num r;
  for (int i = 0; i < LIMBS; i++) {
    const int bit = from + 52 * i, word = bit / 64, shift = bit % 64;
    uint64_t limb[8];
    for (int lane = 0; lane < 8; lane++) {
      uint64_t x = words[lane][word] >> shift;
      if (shift > 12 && word + 1 < DIGEST_WORDS) x |= words[lane][word + 1] << (64 - shift);
      limb[lane] = x & LIMB_MASK;
    }
    r.limb[i] = vec_load(limb);
  }
  return r;
}

/* The digest as a number mod n: x = low + R high with R = 2^260. */
static num digest_mod_order(ed25519_work *work, const vec digest[8]) {
  for (int i = 0; i < DIGEST_WORDS; i++) {
    uint64_t lanes[8];
    vec_store(lanes, digest[i]);
    for (int lane = 0; lane < 8; lane++) work->digest_words[lane][i] = __builtin_bswap64(lanes[lane]);
  }
  const num one = num_small(1), r2 = num_all(order_r2), r3 = num_all(order_r3);
  const num low = digest_part(work->digest_words, 0), high = digest_part(work->digest_words, 260); /* below 2^8 n */
  const num sum = num_carry(num_add(order_mul(&low, &r2), order_mul(&high, &r3)));                 /* x R, below 4 n */
  return num_reduce_once(order_mul(&sum, &one), order_n);
}

/* r = SHA-512(prefix || M) mod n */
static num nonces(ed25519_work *work, const kernel_lane lanes[], size_t count) {
  sha512_message messages[8] = {0};
  vec digest[8];
  for (size_t i = 0; i < 8; i++) {
    messages[i].piece[0] = i < count ? lanes[i].key->ed25519.prefix : no_key;
    messages[i].size[0] = SCALAR_BYTES;
    if (i < count) messages[i].piece[1] = lanes[i].input, messages[i].size[1] = lanes[i].input_size;
  }
  VEC_NAME(sha512_batch)(messages, &work->hash, digest);
  return digest_mod_order(work, digest);
}

/* h = SHA-512(R || A || M) mod n, with R read from the signatures. */
static num challenges(ed25519_work *work, const kernel_lane lanes[], size_t count) {
  sha512_message messages[8] = {0};
  vec digest[8];
  for (size_t i = 0; i < 8; i++) {
    messages[i].piece[0] = work->signatures[i];
    messages[i].piece[1] = i < count ? lanes[i].key->ed25519.seed_public + SCALAR_BYTES : no_key;
    messages[i].size[0] = messages[i].size[1] = SCALAR_BYTES;
    if (i < count) messages[i].piece[2] = lanes[i].input, messages[i].size[2] = lanes[i].input_size;
  }
  VEC_NAME(sha512_batch)(messages, &work->hash, digest);
  return digest_mod_order(work, digest);
}

static void load_secret_scalars(ed25519_work *work, const kernel_lane lanes[], size_t count) {
  for (size_t i = 0; i < 8; i++) {
    memcpy(work->words[i], i < count ? lanes[i].key->ed25519.scalar : no_key, SCALAR_BYTES);
  }
  work->a = num_from_words(work->words); /* below 2^255, that is 8 n */
}

/* x = +-X / Z and y = Y / Z, below p. */
static void make_affine(ed25519_work *work) {
  const num factor = num_all(fe_inverse_factor);
  const num z = num_reduce_once(work->sum.z, fe_p);
  inversion_start(&work->inversion, &z, fe_p, FE_P_INVERSE);
  inversion_run(1, &work->inversion, DIVSTEP_BATCHES);
  const num result = inversion_result(&work->inversion); /* below 4 p */
  const num z_inverse = fe_mul(&result, &factor);
  const num x = num_carry(num_add_constant(num_negate_if(work->turned, work->sum.x), fe_2p)); /* below 3.01 */
  work->x = num_reduce_once(fe_mul(&x, &z_inverse), fe_p);
  work->y = num_reduce_once(fe_mul(&work->sum.y, &z_inverse), fe_p);
}

static void encode_point(ed25519_work *work) {
  uint64_t x0[8];
  vec_store(x0, work->x.limb[0]);
  num_to_words(work->words, work->y);
  for (int i = 0; i < 8; i++) {
    memcpy(work->signatures[i], work->words[i], SCALAR_BYTES);
    work->signatures[i][SCALAR_BYTES - 1] |= (uint8_t)((x0[i] & 1) << 7);
  }
}

static void encode_scalar(ed25519_work *work, num s) {
  num_to_words(work->words, s);
  for (int i = 0; i < 8; i++) memcpy(work->signatures[i] + SCALAR_BYTES, work->words[i], SCALAR_BYTES);
}

/* r + h a mod n */
static num signature_scalar(const ed25519_work *work) {
  const num r2 = num_all(order_r2);
  const num a_montgomery = order_mul(&work->a, &r2);                               /* below 2 n */
  const num sum = num_carry(num_add(order_mul(&work->h, &a_montgomery), work->r)); /* below 3 n */
  return num_reduce_once(num_reduce_once(sum, order_n), order_n);
}

/* Checks 1 and 2. */
static vec_mask check_scalars(ed25519_work *work, const kernel_lane lanes[], size_t count) {
  const num one = num_small(1), n2 = num_all(order_2n);
  const num r = nonces(work, lanes, count);
  vec_mask good = num_is_zero(num_sub(r, work->r)) & num_is_zero(num_sub(r, work->r_again));
  const num h = challenges(work, lanes, count);
  load_secret_scalars(work, lanes, count);
  for (int i = 0; i < 8; i++) memcpy(work->words[i], work->signatures[i] + SCALAR_BYTES, SCALAR_BYTES);
  const num s = num_from_words(work->words);
  good &= num_below(s, order_n);
  /* (S - r - h a) / R: from -4 n + 4 n to 2 n + 4 n, then divided by R again: at most n, and 0 mod n only as 0 or n */
  const num left = order_mul(&s, &one), right1 = order_mul(&r, &one), right2 = order_mul(&h, &work->a);
  const num difference = num_carry(num_add(num_add(num_sub(num_sub(left, right1), right2), n2), n2));
  return good & num_is_zero(num_reduce_once(order_mul(&difference, &one), order_n));
}

/* Check 3. Whether X is turned is determined again from r. */
static vec_mask check_point(ed25519_work *work) {
  uint64_t signs[8];
  for (int i = 0; i < 8; i++) {
    memcpy(work->words[i], work->signatures[i], SCALAR_BYTES);
    signs[i] = work->words[i][WORDS_OF_LIMBS - 1] >> 63;
    work->words[i][WORDS_OF_LIMBS - 1] &= UINT64_MAX >> 1;
  }
  const num y = num_from_words(work->words);
  const vec x0 = vec_and(work->x.limb[0], vec_all(1)), sign = vec_load(signs);
  const vec_mask even = vec_equal(vec_and(work->r_again.limb[0], vec_all(1)), vec_zero());
  const num y_z = fe_mul(&y, &work->sum.z), x_z = fe_mul(&work->x, &work->sum.z);
  return num_below(y, fe_p) & num_below(work->x, fe_p) & vec_equal(x0, sign) & fe_is_zero(num_sub(y_z, work->sum.y)) &
         fe_is_zero(num_sub(x_z, num_negate_if(even, work->sum.x)));
}

#define FAULT(lane, place, flip) KERNEL_FAULT_POINT(KERNEL_ED25519, lane, place, flip)

void VEC_NAME(ed25519_sign)(kernel_lane lanes[], size_t count, kernel_workspace *workspace) {
  ed25519_work *work = (ed25519_work *)workspace->area;
  workspace->used = sizeof(*work);
  work->r = nonces(work, lanes, count);
  work->r_again = work->r;
  for (unsigned i = 0; i < count; i++) FAULT(i, FAULT_ED25519_NONCE, num_flip(&work->r, i, bit));
  comb_scalar scalar = comb_recode(&work->r);
  for (unsigned i = 0; i < count; i++) FAULT(i, FAULT_COMB_DIGIT, num_flip(&scalar.bits, i, bit));
  vec_mask good = comb_multiply(ed25519_comb, &work->r_again, &scalar, &work->sum);
  work->turned = scalar.turned;
  good &= point_on_curve(&work->sum);
  make_affine(work);
  encode_point(work);
  for (unsigned i = 0; i < count; i++) FAULT(i, FAULT_ED25519_R, work->signatures[i][bit / 8 % 32] ^= 1 << bit % 8);

  work->h = challenges(work, lanes, count);
  load_secret_scalars(work, lanes, count);
  encode_scalar(work, signature_scalar(work));
  for (unsigned i = 0; i < count; i++) {
    FAULT(i, FAULT_ED25519_S, work->signatures[i][SCALAR_BYTES + bit / 8 % 32] ^= 1 << bit % 8);
  }

  good &= check_scalars(work, lanes, count);
  good &= check_point(work);
  KERNEL_DECLASSIFY(&good, sizeof(good), "ed25519_verdict");
  KERNEL_DECLASSIFY(work->signatures, sizeof(work->signatures), "ed25519_signature");
  for (size_t i = 0; i < count; i++) {
    if ((good >> i & 1) != 0) {
      memcpy(lanes[i].output, work->signatures[i], 2 * SCALAR_BYTES);
      lanes[i].status = KERNEL_OK;
    } else {
      lanes[i].status = KERNEL_FAULT;
    }
  }
}
