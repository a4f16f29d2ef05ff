/* The shared secret of X25519 (RFC 7748, 5), one at a time: the Montgomery ladder on four lanes.
 *
 * Formula     A step on (x2 : z2), (x3 : z3), whose difference is the point x1, after their exchange by the bit of k:
 *                 A = x2 + z2   B = x2 - z2   C = x3 + z3   D = x3 - z3
 *                 AA = A A      BB = B B      CB = C B      DA = D A
 *                 E = AA - BB
 *                 x2 = AA BB    z2 = E (BB + 121666 E)    x3 = (CB + DA)^2    z3 = x1 (CB - DA)^2
 *             As three products of four lanes: (A, B, C, D) (A, B, B, A), then (AA, E, CB + DA, CB - DA) (BB, 121666,
 *             CB + DA, CB - DA), then (AA BB, BB + 121666 E, ..^2, ..^2) (1, E, 1, x1). The result x2 / z2 takes one
 *             inversion by division steps, in one lane of eight.
 * Lanes       the four numbers (x2, z2, x3, z3), as above. A step waits for its own results most of the time, so
 *             256-bit registers are as fast as wider ones: the processor runs two such instructions at a time.
 * Bounds      five limbs of 51 bits, as in BoringSSL. vpmadd52 sees 52 bits of a factor, so factors are closed: below
 *             2^52. It splits a product at bit 52: the upper half stands at 2^(51 (i + j) + 52), so it counts twice in
 *             limb i + j + 1. Of factors below 2^52 a sum of five such is below 15 2^52 < 2^56, and with 19 times the
 *             limbs above 2^255 below 20 2^56 < 2^60.4: open. Sums and differences are made of open numbers, with
 *             2^11 p, in which every limb is nearly 2^62, added where one is taken off; below 2^63. One round of
 *             carries, all at once, then leaves limbs below 2^51 + 19 2^12: closed.
 * Secret      k, and with it everything after the first step. Nothing branches; lanes are exchanged by a permutation
 *             whose indices are data.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels/ifma8/curve25519_ifma8_field.h"
#include "kernels/ifma8/divsteps_ifma8.h"
#include "kernels/x25519.h"

enum { LIMBS51 = 5, BITS = 255 };
#define MASK51 ((UINT64_C(1) << 51) - 1)

typedef __m256i vec4;

/* One number per lane. */
typedef struct num4 {
  vec4 limb[LIMBS51];
} num4;

VEC_INLINE vec4 vec4_all(uint64_t x) {
  return _mm256_set1_epi64x((long long)x);
}
VEC_INLINE vec4 vec4_set(uint64_t l0, uint64_t l1, uint64_t l2, uint64_t l3) {
  return _mm256_set_epi64x((long long)l3, (long long)l2, (long long)l1, (long long)l0);
}
VEC_INLINE vec4 vec4_add(vec4 a, vec4 b) {
  return _mm256_add_epi64(a, b);
}
/* 19 a */
VEC_INLINE vec4 vec4_times_19(vec4 a) {
  return vec4_add(vec4_add(a, vec4_add(a, a)), _mm256_slli_epi64(a, 4));
}
#define PERMUTED(a, l0, l1, l2, l3) _mm256_permutex_epi64(a, _MM_SHUFFLE(l3, l2, l1, l0))

/* A limb of 2^11 p. */
VEC_INLINE vec4 room_for_minus(int i) {
  const uint64_t less = i == 0 ? 19 : 1;
  return vec4_all((UINT64_C(1) << 62) - (less << 11));
}

#ifdef BOUND_CHECKS
#include <stdlib.h>
VEC_INLINE void num4_assert_below(const num4 *a, uint64_t bound) {
  for (int i = 0; i < LIMBS51; i++) {
    if (_mm256_cmpge_epu64_mask(a->limb[i], vec4_all(bound)) != 0) abort();
  }
}
#else
VEC_INLINE void num4_assert_below(const num4 *a, uint64_t bound) {
  (void)a, (void)bound;
}
#endif

/* a b mod p: open. Both are closed. */
VEC_INLINE num4 num4_mul(const num4 *a, const num4 *b) {
  num4_assert_below(a, UINT64_C(1) << 52);
  num4_assert_below(b, UINT64_C(1) << 52);
  vec4 low[2 * LIMBS51 - 1], high[2 * LIMBS51 - 1]; /* `high` stands one limb higher */
  UNROLLED for (int i = 0; i < 2 * LIMBS51 - 1; i++) low[i] = high[i] = _mm256_setzero_si256();
  UNROLLED for (int i = 0; i < LIMBS51; i++) {
    UNROLLED for (int j = 0; j < LIMBS51; j++) {
      low[i + j] = _mm256_madd52lo_epu64(low[i + j], a->limb[i], b->limb[j]);
      high[i + j] = _mm256_madd52hi_epu64(high[i + j], a->limb[i], b->limb[j]);
    }
  }
  vec4 t[2 * LIMBS51];
  t[0] = low[0];
  UNROLLED for (int i = 1; i < 2 * LIMBS51 - 1; i++) t[i] = vec4_add(low[i], vec4_add(high[i - 1], high[i - 1]));
  t[2 * LIMBS51 - 1] = vec4_add(high[2 * LIMBS51 - 2], high[2 * LIMBS51 - 2]);
  num4 r;
  UNROLLED for (int i = 0; i < LIMBS51; i++) r.limb[i] = vec4_add(t[i], vec4_times_19(t[LIMBS51 + i]));
  num4_assert_below(&r, UINT64_C(3) << 59);
  return r;
}

/* Open to closed. */
VEC_INLINE num4 num4_close(num4 a) {
  num4_assert_below(&a, UINT64_C(1) << 63);
  num4 r;
  vec4 carry[LIMBS51];
  UNROLLED for (int i = 0; i < LIMBS51; i++) {
    carry[i] = _mm256_srli_epi64(a.limb[i], 51);
    r.limb[i] = _mm256_and_si256(a.limb[i], vec4_all(MASK51));
  }
  r.limb[0] = vec4_add(r.limb[0], vec4_times_19(carry[LIMBS51 - 1]));
  UNROLLED for (int i = 1; i < LIMBS51; i++) r.limb[i] = vec4_add(r.limb[i], carry[i - 1]);
  return r;
}

/* One step, from the open (x2, z2, x3, z3) of the previous one, `exchange`, which is all ones when 2 and 3 change
 * places, and (1, ., 1, x1). */
VEC_INLINE num4 ladder_step(const num4 *state, vec4 exchange, const num4 *last_factor) {
  const vec4 places = vec4_set(0, 0, 2, 2), other_places = vec4_set(2, 2, 0, 0), one = vec4_all(1);
  const vec4 of_x = _mm256_xor_si256(places, _mm256_and_si256(exchange, _mm256_xor_si256(places, other_places)));
  const vec4 of_z = _mm256_or_si256(of_x, one);
  num4 a, b, c, d;
  UNROLLED for (int i = 0; i < LIMBS51; i++) { /* A, B, C, D */
    const vec4 x = _mm256_permutexvar_epi64(of_x, state->limb[i]), z = _mm256_permutexvar_epi64(of_z, state->limb[i]);
    a.limb[i] = _mm256_mask_sub_epi64(vec4_add(x, z), 0xa, vec4_add(x, room_for_minus(i)), z);
  }
  a = num4_close(a);
  UNROLLED for (int i = 0; i < LIMBS51; i++) b.limb[i] = PERMUTED(a.limb[i], 0, 1, 1, 0);
  const num4 first = num4_mul(&a, &b); /* AA, BB, CB, DA */

  UNROLLED for (int i = 0; i < LIMBS51; i++) { /* AA, E, CB + DA, CB - DA */
    const vec4 x = PERMUTED(first.limb[i], 0, 0, 2, 2), y = PERMUTED(first.limb[i], 1, 1, 3, 3);
    c.limb[i] = _mm256_mask_sub_epi64(_mm256_mask_add_epi64(x, 0x4, x, y), 0xa, vec4_add(x, room_for_minus(i)), y);
  }
  c = num4_close(c);
  d = num4_close(first);
  UNROLLED for (int i = 0; i < LIMBS51; i++) { /* BB, 121666, CB + DA, CB - DA */
    d.limb[i] = _mm256_mask_mov_epi64(c.limb[i], 0x1, PERMUTED(d.limb[i], 1, 1, 1, 1));
    d.limb[i] = _mm256_mask_mov_epi64(d.limb[i], 0x2, vec4_all(i == 0 ? 121666 : 0));
  }
  num4 second = num4_mul(&c, &d);
  UNROLLED for (int i = 0; i < LIMBS51; i++) { /* AA BB, BB + 121666 E, .., .. */
    second.limb[i] = _mm256_mask_add_epi64(second.limb[i], 0x2, second.limb[i], first.limb[i]);
    d.limb[i] = _mm256_mask_mov_epi64(last_factor->limb[i], 0x2, c.limb[i]);
  }
  second = num4_close(second);
  return num4_mul(&second, &d);
}

/* Bits 51 i and up of a number of 32 bytes, without its top bit. */
VEC_INLINE uint64_t limb_of_bytes(const uint8_t bytes[X25519_BYTES], int i) {
  static const int first_byte[LIMBS51] = {0, 6, 12, 19, 24};
  uint64_t word;
  memcpy(&word, bytes + first_byte[i], sizeof word);
  return word >> (51 * i - 8 * first_byte[i]) & MASK51;
}

/* (x2, z2, x3, z3), closed, for a k that is clamped. */
static num4 ladder(const uint8_t k[X25519_BYTES], const uint8_t point[X25519_BYTES]) {
  num4 state, last_factor; /* (1, 0, x1, 1) and (1, ., 1, x1) */
  UNROLLED for (int i = 0; i < LIMBS51; i++) {
    const uint64_t x1 = limb_of_bytes(point, i);
    state.limb[i] = vec4_set(i == 0, 0, x1, i == 0);
    last_factor.limb[i] = vec4_set(i == 0, 0, i == 0, x1);
  }
  uint64_t before = 0;
  for (int i = BITS - 1; i >= 0; i--) {
    const uint64_t bit = (uint64_t)(k[i / 8] >> i % 8) & 1;
    state = ladder_step(&state, vec4_all(-(bit ^ before)), &last_factor);
    before = bit;
  }
  /* The lowest bits of k are 0, so nothing has to be exchanged back. */
  return num4_close(num4_close(state));
}

/* A lane, closed twice, with limbs of 52 bits, below 1.01 units, in lane 0 of eight. */
static num lane_of(const num4 *a, int lane) {
  uint64_t limb[LIMBS51 + 1] = {0}, four[4];
  for (int i = 0; i < LIMBS51; i++) {
    memcpy(four, &a->limb[i], sizeof four);
    limb[i] = four[lane];
  }
  num r;
  for (int i = 0; i < LIMBS; i++) { /* limb i of 51 bits starts i bits below limb i of 52 */
    const uint64_t below = limb[i + 1] & ((UINT64_C(2) << i) - 1);
    r.limb[i] = vec_set((limb[i] >> i) + (below << (51 - i)), 0, 0, 0, 0, 0, 0, 0);
  }
  return num_carry(r);
}

bool x25519_shared_ifma4(uint8_t shared[X25519_BYTES], const uint8_t private_key[X25519_BYTES],
                         const uint8_t point[X25519_BYTES]) {
  uint8_t k[X25519_BYTES];
  memcpy(k, private_key, sizeof k);
  k[0] &= 0xf8;
  k[31] = (uint8_t)((k[31] & 0x7f) | 0x40);
  const num4 result = ladder(k, point);

  const num x = lane_of(&result, 0), z = num_reduce_once(lane_of(&result, 1), fe_p),
            factor = num_all(fe_inverse_factor);
  inversion inversion; /* of 0 it is 0 */
  inversion_start(&inversion, &z, fe_p, FE_P_INVERSE);
  inversion_run(1, &inversion, DIVSTEP_BATCHES);
  const num inverted = inversion_result(&inversion), inverse = fe_mul(&inverted, &factor);
  uint64_t words[8][WORDS_OF_LIMBS];
  num_to_words(words, num_reduce_once(fe_mul(&x, &inverse), fe_p));
  memcpy(shared, words[0], X25519_BYTES);
  return (words[0][0] | words[0][1] | words[0][2] | words[0][3]) != 0;
}
