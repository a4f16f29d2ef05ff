/* Eight 64-bit lanes: the few vector operations that the kernels are written in.
 *
 * Two builds of the same kernels:
 *   native    a vec8 is an AVX-512 register. The file must be compiled with the flags of ifma8.cmake.
 *   portable  (VEC8_PORTABLE defined) a vec8 is eight uint64_t and every operation is plain C without branches. It is
 *             slow. Valgrind, which does not know AVX-512, follows secrets through it, and machines without IFMA run
 *             the kernels' tests on it. It exists only in builds with TESTING_HOOKS.
 *
 * A function with external linkage must have a name of its own in each build: write VEC8_NAME(rsa_private) in the
 * declaration and wherever it is called; it reads rsa_private_ifma8 or rsa_private_ifma8_portable.
 *
 * The multiplications see only the low 52 bits of each factor (vpmadd52), so limbs may carry bits above them that a
 * normalisation has already accounted for. All other operations see all 64 bits and wrap around.
 */
#ifndef KERNELS_IFMA8_VEC8_H
#define KERNELS_IFMA8_VEC8_H

#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(VEC8_PORTABLE)
#define VEC8_INLINE static inline __attribute__((always_inline, unused))
#else
#define VEC8_INLINE static inline __attribute__((unused))
#endif

/* For generated code. VEC8_KEEP: the value stays in one register from here on; without it gcc loads a factor from
 * memory once for each multiplication that uses it, and two loads per cycle are then the limit instead of two
 * multiplications. VEC8_FORGET: what was read through the pointer is not kept for later; without it gcc keeps more
 * limbs than there are registers, and spills them. Neither makes an instruction. */
#ifndef VEC8_PORTABLE
#define VEC8_KEEP(value) __asm__("" : "+v"(value))
#else
#define VEC8_KEEP(value) ((void)0)
#endif
#define VEC8_FORGET(pointer) __asm__ volatile("" : "+r"(pointer))

/* One bit per lane, lane 0 lowest. */
typedef uint8_t vec8_mask;

#ifndef VEC8_PORTABLE

#include <immintrin.h>

#define VEC8_NAME(name) name##_ifma8

typedef __m512i vec8;

VEC8_INLINE vec8 vec8_zero(void) {
  return _mm512_setzero_si512();
}
VEC8_INLINE vec8 vec8_all(uint64_t x) {
  return _mm512_set1_epi64((long long)x);
}
VEC8_INLINE vec8 vec8_set(uint64_t l0, uint64_t l1, uint64_t l2, uint64_t l3, uint64_t l4, uint64_t l5, uint64_t l6,
                          uint64_t l7) {
  return _mm512_set_epi64((long long)l7, (long long)l6, (long long)l5, (long long)l4, (long long)l3, (long long)l2,
                          (long long)l1, (long long)l0);
}
/* Memory of a vec8 is 64 bytes, lane 0 first. Any alignment works; aligned to 64 is faster. */
VEC8_INLINE vec8 vec8_load(const void *from) {
  return _mm512_loadu_si512(from);
}
VEC8_INLINE void vec8_store(void *to, vec8 a) {
  _mm512_storeu_si512(to, a);
}

VEC8_INLINE vec8 vec8_add(vec8 a, vec8 b) {
  return _mm512_add_epi64(a, b);
}
VEC8_INLINE vec8 vec8_sub(vec8 a, vec8 b) {
  return _mm512_sub_epi64(a, b);
}
VEC8_INLINE vec8 vec8_and(vec8 a, vec8 b) {
  return _mm512_and_si512(a, b);
}
VEC8_INLINE vec8 vec8_or(vec8 a, vec8 b) {
  return _mm512_or_si512(a, b);
}
VEC8_INLINE vec8 vec8_xor(vec8 a, vec8 b) {
  return _mm512_xor_si512(a, b);
}
/* a & ~b */
VEC8_INLINE vec8 vec8_clear(vec8 a, vec8 b) {
  return _mm512_andnot_si512(b, a);
}
/* Shifts by a public constant of 0 to 63; shift_right_signed copies the sign. */
#define vec8_shift_left(a, bits) _mm512_slli_epi64(a, bits)
#define vec8_shift_right(a, bits) _mm512_srli_epi64(a, bits)
#define vec8_shift_right_signed(a, bits) _mm512_srai_epi64(a, bits)
#define vec8_rotate_right(a, bits) _mm512_ror_epi64(a, bits)
/* Bit by bit: a ^ b ^ c; b where a is set, else c; what at least two of the three have. */
VEC8_INLINE vec8 vec8_xor3(vec8 a, vec8 b, vec8 c) {
  return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}
VEC8_INLINE vec8 vec8_choose(vec8 a, vec8 b, vec8 c) {
  return _mm512_ternarylogic_epi64(a, b, c, 0xca);
}
VEC8_INLINE vec8 vec8_majority(vec8 a, vec8 b, vec8 c) {
  return _mm512_ternarylogic_epi64(a, b, c, 0xe8);
}
/* Shifts by another amount in each lane, 0 to 63. */
VEC8_INLINE vec8 vec8_shift_right_each(vec8 a, vec8 bits) {
  return _mm512_srlv_epi64(a, bits);
}

/* sum + low (bits 0 to 51) or high (bits 52 to 103) half of the product of the low 52 bits of a and b. */
VEC8_INLINE vec8 vec8_madd_low(vec8 sum, vec8 a, vec8 b) {
  return _mm512_madd52lo_epu64(sum, a, b);
}
VEC8_INLINE vec8 vec8_madd_high(vec8 sum, vec8 a, vec8 b) {
  return _mm512_madd52hi_epu64(sum, a, b);
}

/* Low 64 bits of the product of all 64 bits of a and b; of signed numbers as well. */
VEC8_INLINE vec8 vec8_multiply(vec8 a, vec8 b) {
  return _mm512_mullo_epi64(a, b);
}

VEC8_INLINE vec8_mask vec8_equal(vec8 a, vec8 b) {
  return _mm512_cmpeq_epi64_mask(a, b);
}
VEC8_INLINE vec8_mask vec8_below(vec8 a, vec8 b) {
  return _mm512_cmplt_epu64_mask(a, b);
} /* unsigned */
VEC8_INLINE vec8_mask vec8_negative(vec8 a) {
  return _mm512_movepi64_mask(a);
}
/* Lanes where a & b is not 0. */
VEC8_INLINE vec8_mask vec8_any_bit(vec8 a, vec8 b) {
  return _mm512_test_epi64_mask(a, b);
}

/* if_set in the lanes of the mask, if_clear in the others. */
VEC8_INLINE vec8 vec8_select(vec8_mask mask, vec8 if_set, vec8 if_clear) {
  return _mm512_mask_mov_epi64(if_clear, mask, if_set);
}
/* a + b, a - b in the lanes of the mask, a in the others. */
VEC8_INLINE vec8 vec8_masked_add(vec8_mask mask, vec8 a, vec8 b) {
  return _mm512_mask_add_epi64(a, mask, a, b);
}
VEC8_INLINE vec8 vec8_masked_sub(vec8_mask mask, vec8 a, vec8 b) {
  return _mm512_mask_sub_epi64(a, mask, a, b);
}

/* Lane i is low[index[i] & 7], or high[index[i] & 7] where bit 3 of the index is set: a table of 16 that all lanes
 * share, in constant time. */
VEC8_INLINE vec8 vec8_lookup16(vec8 low, vec8 high, vec8 index) {
  return _mm512_permutex2var_epi64(low, index, high);
}
/* Lane i is table[index[i] & 7]. */
VEC8_INLINE vec8 vec8_lookup8(vec8 table, vec8 index) {
  return _mm512_permutexvar_epi64(index, table);
}

#else /* VEC8_PORTABLE */

#define VEC8_NAME(name) name##_ifma8_portable

typedef struct vec8 {
  uint64_t lane[8];
} vec8;

#define VEC8_EACH(expression)                                \
  vec8 result;                                               \
  for (int i = 0; i < 8; i++) result.lane[i] = (expression); \
  return result
#define VEC8_EACH_BIT(expression)                                                               \
  vec8_mask result = 0;                                                                         \
  for (int i = 0; i < 8; i++) result = (vec8_mask)(result | (unsigned)((expression) & 1) << i); \
  return result

enum { VEC8_LIMB_BITS_ = 52 };
#define VEC8_LIMB_MASK_ ((UINT64_C(1) << VEC8_LIMB_BITS_) - 1)

/* All ones where the bit of lane i is set. */
static inline uint64_t vec8_lane_mask_(vec8_mask mask, int i) {
  return -(uint64_t)((mask >> i) & 1);
}
/* 1 where x is not 0, without a comparison. */
static inline uint64_t vec8_nonzero_(uint64_t x) {
  return (x | -x) >> 63;
}

VEC8_INLINE vec8 vec8_all(uint64_t x) {
  VEC8_EACH(x);
}
VEC8_INLINE vec8 vec8_zero(void) {
  return vec8_all(0);
}
VEC8_INLINE vec8 vec8_set(uint64_t l0, uint64_t l1, uint64_t l2, uint64_t l3, uint64_t l4, uint64_t l5, uint64_t l6,
                          uint64_t l7) {
  return (vec8){{l0, l1, l2, l3, l4, l5, l6, l7}};
}
VEC8_INLINE vec8 vec8_load(const void *from) {
  vec8 result;
  memcpy(&result, from, sizeof result);
  return result;
}
VEC8_INLINE void vec8_store(void *to, vec8 a) {
  memcpy(to, &a, sizeof a);
}

VEC8_INLINE vec8 vec8_add(vec8 a, vec8 b) {
  VEC8_EACH(a.lane[i] + b.lane[i]);
}
VEC8_INLINE vec8 vec8_sub(vec8 a, vec8 b) {
  VEC8_EACH(a.lane[i] - b.lane[i]);
}
VEC8_INLINE vec8 vec8_and(vec8 a, vec8 b) {
  VEC8_EACH(a.lane[i] & b.lane[i]);
}
VEC8_INLINE vec8 vec8_or(vec8 a, vec8 b) {
  VEC8_EACH(a.lane[i] | b.lane[i]);
}
VEC8_INLINE vec8 vec8_xor(vec8 a, vec8 b) {
  VEC8_EACH(a.lane[i] ^ b.lane[i]);
}
VEC8_INLINE vec8 vec8_clear(vec8 a, vec8 b) {
  VEC8_EACH(a.lane[i] & ~b.lane[i]);
}
VEC8_INLINE vec8 vec8_shift_left(vec8 a, int bits) {
  VEC8_EACH(a.lane[i] << bits);
}
VEC8_INLINE vec8 vec8_shift_right(vec8 a, int bits) {
  VEC8_EACH(a.lane[i] >> bits);
}
VEC8_INLINE vec8 vec8_shift_right_signed(vec8 a, int bits) {
  VEC8_EACH((uint64_t)((int64_t)a.lane[i] >> bits));
}
VEC8_INLINE vec8 vec8_rotate_right(vec8 a, int bits) {
  VEC8_EACH(a.lane[i] >> bits | a.lane[i] << (64 - bits));
}
VEC8_INLINE vec8 vec8_xor3(vec8 a, vec8 b, vec8 c) {
  VEC8_EACH(a.lane[i] ^ b.lane[i] ^ c.lane[i]);
}
VEC8_INLINE vec8 vec8_choose(vec8 a, vec8 b, vec8 c) {
  VEC8_EACH((a.lane[i] & b.lane[i]) | (~a.lane[i] & c.lane[i]));
}
VEC8_INLINE vec8 vec8_majority(vec8 a, vec8 b, vec8 c) {
  VEC8_EACH((a.lane[i] & b.lane[i]) | (a.lane[i] & c.lane[i]) | (b.lane[i] & c.lane[i]));
}
VEC8_INLINE vec8 vec8_shift_right_each(vec8 a, vec8 bits) {
  VEC8_EACH(a.lane[i] >> (bits.lane[i] & 63));
}

/* How often a vpmadd52 would have run, for what benchmarks.kernels says about the limit of its ports. */
#ifdef TESTING_HOOKS
extern _Thread_local uint64_t vec8_multiplications;
#define VEC8_COUNT_() (vec8_multiplications++)
#else
#define VEC8_COUNT_() ((void)0)
#endif
static inline unsigned __int128 vec8_product_(uint64_t a, uint64_t b) {
  return (unsigned __int128)(a & VEC8_LIMB_MASK_) * (b & VEC8_LIMB_MASK_);
}
/* Not inlined: generated code has thousands of them. */
static __attribute__((noinline, unused)) vec8 vec8_madd_low(vec8 sum, vec8 a, vec8 b) {
  VEC8_COUNT_();
  VEC8_EACH(sum.lane[i] + ((uint64_t)vec8_product_(a.lane[i], b.lane[i]) & VEC8_LIMB_MASK_));
}
static __attribute__((noinline, unused)) vec8 vec8_madd_high(vec8 sum, vec8 a, vec8 b) {
  VEC8_COUNT_();
  VEC8_EACH(sum.lane[i] + (uint64_t)(vec8_product_(a.lane[i], b.lane[i]) >> VEC8_LIMB_BITS_));
}

VEC8_INLINE vec8 vec8_multiply(vec8 a, vec8 b) {
  VEC8_EACH(a.lane[i] * b.lane[i]);
}

VEC8_INLINE vec8_mask vec8_equal(vec8 a, vec8 b) {
  VEC8_EACH_BIT(1 ^ vec8_nonzero_(a.lane[i] ^ b.lane[i]));
}
VEC8_INLINE vec8_mask vec8_below(vec8 a, vec8 b) {
  VEC8_EACH_BIT((((unsigned __int128)a.lane[i] - b.lane[i]) >> 64));
}
VEC8_INLINE vec8_mask vec8_negative(vec8 a) {
  VEC8_EACH_BIT(a.lane[i] >> 63);
}
VEC8_INLINE vec8_mask vec8_any_bit(vec8 a, vec8 b) {
  VEC8_EACH_BIT(vec8_nonzero_(a.lane[i] & b.lane[i]));
}

VEC8_INLINE vec8 vec8_select(vec8_mask mask, vec8 if_set, vec8 if_clear) {
  VEC8_EACH(if_clear.lane[i] ^ ((if_clear.lane[i] ^ if_set.lane[i]) & vec8_lane_mask_(mask, i)));
}
VEC8_INLINE vec8 vec8_masked_add(vec8_mask mask, vec8 a, vec8 b) {
  VEC8_EACH(a.lane[i] + (b.lane[i] & vec8_lane_mask_(mask, i)));
}
VEC8_INLINE vec8 vec8_masked_sub(vec8_mask mask, vec8 a, vec8 b) {
  VEC8_EACH(a.lane[i] - (b.lane[i] & vec8_lane_mask_(mask, i)));
}

/* The index is secret, so it must not become an address: every entry is read and masked. */
VEC8_INLINE vec8 vec8_lookup16(vec8 low, vec8 high, vec8 index) {
  vec8 result = vec8_zero();
  for (int i = 0; i < 8; i++) {
    for (uint64_t entry = 0; entry < 16; entry++) {
      uint64_t mask = vec8_nonzero_((index.lane[i] & 15) ^ entry) - 1;
      result.lane[i] |= mask & (entry < 8 ? low.lane[entry] : high.lane[entry - 8]);
    }
  }
  return result;
}
VEC8_INLINE vec8 vec8_lookup8(vec8 table, vec8 index) {
  return vec8_lookup16(table, table, index);
}

#undef VEC8_EACH
#undef VEC8_EACH_BIT
#undef VEC8_COUNT_

#endif /* VEC8_PORTABLE */

/* In builds with BOUND_CHECKS: stops the program when a lane, taken as signed, is below `low` or above `high`. */
#ifdef BOUND_CHECKS
#include <stdio.h>
#include <stdlib.h>
static inline void vec8_assert_within_(vec8 value, int64_t low, int64_t high, const char *where, int line) {
  int64_t lanes[8];
  vec8_store(lanes, value);
  for (int i = 0; i < 8; i++) {
    if (lanes[i] < low || lanes[i] > high) {
      fprintf(stderr, "%s:%d: lane %d: a limb is outside its proved bounds\n", where, line, i);
      abort();
    }
  }
}
#define VEC8_ASSERT_WITHIN(value, low, high) vec8_assert_within_((value), (low), (high), __FILE__, __LINE__)
#else
#define VEC8_ASSERT_WITHIN(value, low, high) ((void)0)
#endif

#endif
