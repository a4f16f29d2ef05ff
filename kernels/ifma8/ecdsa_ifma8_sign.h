/* ECDSA signatures, eight lanes at a time: the body of p256_ifma8_sign.c and p384_ifma8_sign.c.
 *
 * Formula     (x, y) = k G,   r = x mod n,   s = (m + r d) / k mod n
 *             with k hedged (kernels/ecdsa_nonce.h) and m the digest as a number. x = X / ZZ: 1/ZZ mod p and
 *             1/k mod n are computed together, interleaved (divsteps_ifma8.h).
 * Lanes       lane i is operation i, with its own key. Lanes without an operation sign with d = k = m = 1.
 * Bounds      order_mul takes factors below 4 n and gives less than 2 n; m < 2^256 (2^384) < 2 n.
 *             Other bounds are given where they apply.
 * Secret      d, k and everything before r and s. The only branches are on the number of operations, which is public,
 *             and at the very end on which lanes passed the check.
 *
 * The check, before anything is released. r and s are read back from the bytes that would be released, d and m are read
 * again from key and input, and they must satisfy
 *   1. s k = m + r d mod n, 0 < r < n, 0 < s < n      (the scalar half, computed in another order than s was)
 *   2. x ZZ = X mod p with x = r or r + n             (r is the abscissa of the point)
 *   3. (X, Y, ZZ, ZZZ) is on the curve                (the additions went right)
 *   4. the tags of the added entries sum up to k      (it is the point of this k, see comb_ifma8.h)
 *
 * What it does not detect: a fault in the stored key or digest before the lane was loaded (software would sign with it
 * too); two faults that cancel each other; a nonce that was wrong from the beginning (then the signature is valid, and
 * as nonces are never repeated, it reveals nothing). A lane that fails is KERNEL_FAULT and is redone in software.
 *
 * The including file defines ECDSA_SIGN, ECDSA_ALGORITHM and ECDSA_TABLE, and includes its field first.
 */
#include <string.h>

#include "kernels/ifma8/divsteps_ifma8.h"
#include "kernels/ifma8/ecdsa_ifma8_nonce.h"
#include "kernels/ifma8/order_ifma8.h"
#include "kernels/ifma8/weierstrass_ifma8_comb.h"
#include "kernels/key_internal.h"
#include "kernels/secret_flow.h"
#include "kernels/testing_hooks.h"
#include "kernels/workspace_internal.h"

enum { ORDER_WORDS = WORDS_OF_LIMBS, ORDER_BYTES = 8 * ORDER_WORDS };

typedef uint64_t lane_words[8][ORDER_WORDS];

/* Overlays the workspace: all of it is secret until the check has passed. */
typedef struct ecdsa_work {
  lane_words k_words, d_words, m_words, r_words, s_words;
  num k, d, m;
  point sum;
  inversion inversions[2]; /* of ZZ mod p, of k mod n */
  nonce_work nonces;
  uint8_t signatures[8][2 * ORDER_BYTES];
} ecdsa_work;
_Static_assert(sizeof(ecdsa_work) <= KERNEL_AREA_SIZE, "the workspace is too small");

static void words_from_bytes(uint64_t words[ORDER_WORDS], const uint8_t bytes[ORDER_BYTES]) {
  for (int i = 0; i < ORDER_WORDS; i++) {
    uint64_t word;
    memcpy(&word, bytes + 8 * (ORDER_WORDS - 1 - i), 8);
    words[i] = __builtin_bswap64(word);
  }
}

static void bytes_from_words(uint8_t bytes[ORDER_BYTES], const uint64_t words[ORDER_WORDS]) {
  for (int i = 0; i < ORDER_WORDS; i++) {
    const uint64_t word = __builtin_bswap64(words[i]);
    memcpy(bytes + 8 * (ORDER_WORDS - 1 - i), &word, 8);
  }
}

/* d and m of all lanes; 1 where there is no operation. */
static void load_keys_and_digests(ecdsa_work *work, const kernel_lane lanes[], size_t count) {
  memset(work->d_words, 0, sizeof(work->d_words));
  memset(work->m_words, 0, sizeof(work->m_words));
  for (size_t i = 0; i < 8; i++) {
    if (i < count) {
      memcpy(work->d_words[i], lanes[i].key->ec.d, ORDER_BYTES);
      words_from_bytes(work->m_words[i], lanes[i].input);
    } else {
      work->d_words[i][0] = work->m_words[i][0] = 1;
    }
  }
  work->d = num_from_words(work->d_words);
  work->m = num_from_words(work->m_words);
}

static void load_nonces(ecdsa_work *work, const kernel_lane lanes[], size_t count) {
  ecdsa_nonce_fresh(work->nonces.fresh);
  nonces_from_fresh(ECDSA_ALGORITHM, &work->nonces, lanes, count, ORDER_WORDS, (uint64_t *)work->k_words);
  work->k = num_from_words(work->k_words);
}

/* 1/ZZ, to be multiplied with a number in Montgomery form, and 1/k in Montgomery form. */
static void invert(ecdsa_work *work, num *zz_inverse, num *k_inverse) {
  const num zz_factor = num_all(fe_inverse_factor), k_factor = num_all(order_inverse_factor);
  const num zz = num_reduce_once(work->sum.zz, fe_p); /* from below 1.15 units */
  inversion_start(&work->inversions[0], &zz, fe_p, FE_P_INVERSE);
  inversion_start(&work->inversions[1], &work->k, order_n, ORDER_N_INVERSE);
  inversion_run(2, work->inversions, DIVSTEP_BATCHES);
  num result = inversion_result(&work->inversions[0]); /* below 4 p */
  *zz_inverse = fe_mul(&result, &zz_factor);
  result = inversion_result(&work->inversions[1]);
  *k_inverse = order_mul(&result, &k_factor);
}

/* r = x mod n; *wrapped gets the lanes where x was n or more. */
static num abscissa(const ecdsa_work *work, const num *zz_inverse, vec_mask *wrapped) {
  /* 2.01 1.3/16 + 1 units: below 2 p */
  const num x = num_reduce_once(fe_mul(&work->sum.x, zz_inverse), fe_p);
  *wrapped = (vec_mask)~num_below(x, order_n);
  return num_reduce_once(x, order_n);
}

/* (m + r d) / k mod n; k_inverse is in Montgomery form. */
static num signature_scalar(const ecdsa_work *work, const num *r, const num *k_inverse) {
  const num r2 = num_all(order_r2);
  const num d_montgomery = order_mul(&work->d, &r2);
  const num rd = order_mul(r, &d_montgomery);
  const num sum = num_carry(num_add(rd, work->m)); /* below 2 n + 2 n */
  return num_reduce_once(order_mul(&sum, k_inverse), order_n);
}

/* Checks 1 and 2 of the four; 3 and 4 are done where the point is computed. r and s are read from the bytes to be
 * released. */
static __attribute__((noinline)) vec_mask check_signatures(ecdsa_work *work, const kernel_lane lanes[], size_t count,
                                                           vec_mask wrapped) {
  for (size_t i = 0; i < 8; i++) {
    words_from_bytes(work->r_words[i], work->signatures[i]);
    words_from_bytes(work->s_words[i], work->signatures[i] + ORDER_BYTES);
  }
  load_keys_and_digests(work, lanes, count);
  const num one = num_small(1), r = num_from_words(work->r_words), s = num_from_words(work->s_words);
  vec_mask good = num_below(r, order_n) & num_below(s, order_n);
  good &= (vec_mask) ~(num_is_zero(r) | num_is_zero(s));

  /* all three times 1/R: from -4 n + 4 n to 2 n + 4 n */
  const num sk = order_mul(&s, &work->k), rd = order_mul(&r, &work->d), m = order_mul(&work->m, &one);
  const num n2 = num_all(order_2n);
  const num difference = num_carry(num_add(num_add(num_sub(num_sub(sk, rd), m), n2), n2));
  /* below 6/16 n 2^-256 + n: at most n, and 0 mod n only as 0 or n */
  good &= num_is_zero(num_reduce_once(order_mul(&difference, &one), order_n));

  const num x = num_carry(num_select(wrapped, num_add_constant(r, order_n), r)); /* below 2 */
  const num x_zz = fe_mul(&x, &work->sum.zz), plain_x = fe_mul(&work->sum.x, &one);
  const num zero = num_carry(num_add_constant(num_sub(x_zz, plain_x), fe_2p));
  good &= num_is_zero(num_reduce_once(fe_mul(&zero, &one), fe_p));
  return good;
}

static void store_signatures(ecdsa_work *work, num r, num s) {
  num_to_words(work->r_words, r);
  num_to_words(work->s_words, s);
  for (int i = 0; i < 8; i++) {
    bytes_from_words(work->signatures[i], work->r_words[i]);
    bytes_from_words(work->signatures[i] + ORDER_BYTES, work->s_words[i]);
  }
}

#define FAULT(lane, place, flip) KERNEL_FAULT_POINT(ECDSA_ALGORITHM, lane, place, flip)

void ECDSA_SIGN(kernel_lane lanes[], size_t count, kernel_workspace *workspace) {
  ecdsa_work *work = (ecdsa_work *)workspace->area;
  workspace->used = sizeof(*work);
  load_keys_and_digests(work, lanes, count);
  load_nonces(work, lanes, count);

  comb_scalar scalar = comb_recode(&work->k);
  for (unsigned i = 0; i < count; i++) FAULT(i, FAULT_COMB_DIGIT, num_flip(&scalar.bits, i, bit));
  vec_mask good = comb_multiply(ECDSA_TABLE, &work->k, &scalar, &work->sum);
  for (unsigned i = 0; i < count; i++) { /* a bit of X, Y, ZZ or ZZZ, 52 LIMBS bits each */
    FAULT(i, FAULT_ECDSA_POINT, num_flip(&work->sum.x + bit / (52 * LIMBS) % 4, i, bit));
  }
  good &= point_on_curve(&work->sum);

  num zz_inverse, k_inverse;
  invert(work, &zz_inverse, &k_inverse);
  for (unsigned i = 0; i < count; i++) {
    FAULT(i, FAULT_ECDSA_INVERSE, num_flip(bit < 512 ? &zz_inverse : &k_inverse, i, bit % 512));
  }
  vec_mask wrapped;
  num r = abscissa(work, &zz_inverse, &wrapped);
  for (unsigned i = 0; i < count; i++) FAULT(i, FAULT_ECDSA_R, num_flip(&r, i, bit));
  num s = signature_scalar(work, &r, &k_inverse);
  for (unsigned i = 0; i < count; i++) FAULT(i, FAULT_ECDSA_S, num_flip(&s, i, bit));

  store_signatures(work, r, s);
  good &= check_signatures(work, lanes, count, wrapped);
  KERNEL_DECLASSIFY(&good, sizeof(good), "ecdsa_verdict");
  KERNEL_DECLASSIFY(work->signatures, sizeof(work->signatures), "ecdsa_signature");
  for (size_t i = 0; i < count; i++) {
    if ((good >> i & 1) != 0) {
      memcpy(lanes[i].output, work->signatures[i], 2 * ORDER_BYTES);
      lanes[i].status = KERNEL_OK;
    } else {
      lanes[i].status = KERNEL_FAULT;
    }
  }
}
