/* Vectors of 64-bit lanes: the few operations that the kernels are written with.
 *
 * VEC_LANES is the number of lanes: 8 unless the build sets 4. The RSA kernels are built for both (rsa_ifma8_lanes.c
 * chooses between them); all other kernels use eight lanes.
 *
 * Two builds of the same kernels:
 *   native    a vec is an AVX-512 register, or half of one. The file must be compiled with the flags of ifma8.cmake.
 *   portable  (VEC_PORTABLE defined) a vec is an array of uint64_t and every operation is plain C without branches. It
 *             is slow. Valgrind, which does not know AVX-512, follows secrets through it, and machines without IFMA run
 *             the kernels' tests on it. It exists only in builds with TESTING_HOOKS.
 *
 * A function with external linkage must have a different name in each build: write VEC_NAME(rsa_private) in the
 * declaration and at every call; it expands to rsa_private_ifma8, rsa_private_ifma4, or the same with _portable.
 *
 * The multiplications read only the low 52 bits of each factor (vpmadd52), so limbs may have higher bits that a
 * normalisation has already accounted for. All other operations use all 64 bits and wrap around.
 */
#ifndef KERNELS_IFMA8_VEC_H
#define KERNELS_IFMA8_VEC_H

#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(VEC_PORTABLE)
#define VEC_INLINE static inline __attribute__((always_inline, unused))
#else
#define VEC_INLINE static inline __attribute__((unused))
#endif

/* For generated code. VEC_KEEP: the value stays in one register from here on; without it gcc loads a factor from memory
 * once for each multiplication that uses it, and two loads per cycle are then the limit instead of two multiplications.
 * VEC_FORGET: values read through the pointer are not kept for later use; without it gcc keeps more limbs than there
 * are registers, and spills them. Neither emits an instruction. */
#ifndef VEC_PORTABLE
#define VEC_KEEP(value) __asm__("" : "+v"(value))
#else
#define VEC_KEEP(value) ((void)0)
#endif
#define VEC_FORGET(pointer) __asm__ volatile("" : "+r"(pointer))

#ifndef VEC_LANES
#define VEC_LANES 8
#endif

/* One bit per lane, lane 0 lowest. */
typedef uint8_t vec_mask;

#ifndef VEC_PORTABLE

#include <immintrin.h>

/* VEC_OP_(add_epi64) and VEC_BITS_(and) expand to the intrinsics of that name for the width. */
#if VEC_LANES == 8
#define VEC_NAME(name) name##_ifma8
#define VEC_OP_(name) _mm512_##name
#define VEC_BITS_(name) _mm512_##name##_si512
typedef __m512i vec;
VEC_INLINE vec vec_all(uint64_t x) {
  return _mm512_set1_epi64((long long)x);
}
#else
#define VEC_NAME(name) name##_ifma4
#define VEC_OP_(name) _mm256_##name
#define VEC_BITS_(name) _mm256_##name##_si256
typedef __m256i vec;
VEC_INLINE vec vec_all(uint64_t x) {
  return _mm256_set1_epi64x((long long)x);
}
#endif

VEC_INLINE vec vec_zero(void) {
  return VEC_BITS_(setzero)();
}
/* In memory, a vec has 8 bytes per lane, lane 0 first. Any alignment works; alignment to its size is faster. */
VEC_INLINE vec vec_load(const void *from) {
  return VEC_BITS_(loadu)((const vec *)from);
}
VEC_INLINE void vec_store(void *to, vec a) {
  VEC_BITS_(storeu)((vec *)to, a);
}

VEC_INLINE vec vec_add(vec a, vec b) {
  return VEC_OP_(add_epi64)(a, b);
}
VEC_INLINE vec vec_sub(vec a, vec b) {
  return VEC_OP_(sub_epi64)(a, b);
}
VEC_INLINE vec vec_and(vec a, vec b) {
  return a & b;
}
VEC_INLINE vec vec_or(vec a, vec b) {
  return a | b;
}
VEC_INLINE vec vec_xor(vec a, vec b) {
  return a ^ b;
}
/* a & ~b */
VEC_INLINE vec vec_clear(vec a, vec b) {
  return VEC_BITS_(andnot)(b, a);
}
/* Shifts by a public constant of 0 to 63; shift_right_signed copies the sign. */
#define vec_shift_left(a, bits) VEC_OP_(slli_epi64)(a, bits)
#define vec_shift_right(a, bits) VEC_OP_(srli_epi64)(a, bits)
#define vec_shift_right_signed(a, bits) VEC_OP_(srai_epi64)(a, bits)
#define vec_rotate_right(a, bits) VEC_OP_(ror_epi64)(a, bits)
/* 2 a + 1 */
VEC_INLINE vec vec_double_plus_one(vec a) {
  return VEC_OP_(shldi_epi64)(a, vec_all(~UINT64_C(0)), 1);
}
/* Bit by bit: a ^ b ^ c; b where a is set, else c; the majority of the three. */
VEC_INLINE vec vec_xor3(vec a, vec b, vec c) {
  return VEC_OP_(ternarylogic_epi64)(a, b, c, 0x96);
}
VEC_INLINE vec vec_choose(vec a, vec b, vec c) {
  return VEC_OP_(ternarylogic_epi64)(a, b, c, 0xca);
}
VEC_INLINE vec vec_majority(vec a, vec b, vec c) {
  return VEC_OP_(ternarylogic_epi64)(a, b, c, 0xe8);
}
/* Shifts each lane by its own amount, 0 to 63. */
VEC_INLINE vec vec_shift_right_each(vec a, vec bits) {
  return VEC_OP_(srlv_epi64)(a, bits);
}

/* sum + low (bits 0 to 51) or high (bits 52 to 103) half of the product of the low 52 bits of a and b. */
VEC_INLINE vec vec_madd_low(vec sum, vec a, vec b) {
  return VEC_OP_(madd52lo_epu64)(sum, a, b);
}
VEC_INLINE vec vec_madd_high(vec sum, vec a, vec b) {
  return VEC_OP_(madd52hi_epu64)(sum, a, b);
}

/* Low 64 bits of the product of all 64 bits of a and b; of signed numbers as well. */
VEC_INLINE vec vec_multiply(vec a, vec b) {
  return VEC_OP_(mullo_epi64)(a, b);
}

VEC_INLINE vec_mask vec_equal(vec a, vec b) {
  return VEC_OP_(cmpeq_epi64_mask)(a, b);
}
VEC_INLINE vec_mask vec_below(vec a, vec b) {
  return VEC_OP_(cmplt_epu64_mask)(a, b);
} /* unsigned */
VEC_INLINE vec_mask vec_negative(vec a) {
  return VEC_OP_(movepi64_mask)(a);
}
/* Lanes where a & b is not 0. */
VEC_INLINE vec_mask vec_any_bit(vec a, vec b) {
  return VEC_OP_(test_epi64_mask)(a, b);
}

/* if_set in the lanes of the mask, if_clear in the others. */
VEC_INLINE vec vec_select(vec_mask mask, vec if_set, vec if_clear) {
  return VEC_OP_(mask_mov_epi64)(if_clear, mask, if_set);
}
/* a + b, a - b in the lanes of the mask, a in the others. */
VEC_INLINE vec vec_masked_add(vec_mask mask, vec a, vec b) {
  return VEC_OP_(mask_add_epi64)(a, mask, a, b);
}
VEC_INLINE vec vec_masked_sub(vec_mask mask, vec a, vec b) {
  return VEC_OP_(mask_sub_epi64)(a, mask, a, b);
}

#if VEC_LANES == 8
VEC_INLINE vec vec_set(uint64_t l0, uint64_t l1, uint64_t l2, uint64_t l3, uint64_t l4, uint64_t l5, uint64_t l6,
                       uint64_t l7) {
  return _mm512_set_epi64((long long)l7, (long long)l6, (long long)l5, (long long)l4, (long long)l3, (long long)l2,
                          (long long)l1, (long long)l0);
}
/* Lane i is low[index[i] & 7], or high[index[i] & 7] where bit 3 of the index is set: a table of 16 that all lanes
 * share, in constant time. */
VEC_INLINE vec vec_lookup16(vec low, vec high, vec index) {
  return _mm512_permutex2var_epi64(low, index, high);
}
/* Lane i is table[index[i] & 7]. */
VEC_INLINE vec vec_lookup8(vec table, vec index) {
  return _mm512_permutexvar_epi64(index, table);
}
#endif

#undef VEC_BITS_

#else /* VEC_PORTABLE */

#if VEC_LANES == 8
#define VEC_NAME(name) name##_ifma8_portable
#else
#define VEC_NAME(name) name##_ifma4_portable
#endif

typedef struct vec {
  uint64_t lane[VEC_LANES];
} vec;

/* Counts the vpmadd52 that would have run, and all vector instructions but loads, stores and copies, from which
 * benchmarks.kernels computes the limits of the processor's ports. */
#ifdef TESTING_HOOKS
extern _Thread_local uint64_t vec_multiplications, vec_instructions;
#define VEC_COUNT_() (vec_instructions++)
#define VEC_COUNT_MULTIPLICATION_() (vec_instructions++, vec_multiplications++)
#else
#define VEC_COUNT_() ((void)0)
#define VEC_COUNT_MULTIPLICATION_() ((void)0)
#endif

#define VEC_EACH(expression) \
  VEC_COUNT_();              \
  VEC_EACH_UNCOUNTED(expression)
#define VEC_EACH_UNCOUNTED(expression)                               \
  vec result;                                                        \
  for (int i = 0; i < VEC_LANES; i++) result.lane[i] = (expression); \
  return result
#define VEC_EACH_BIT(expression)                                                                       \
  VEC_COUNT_();                                                                                        \
  vec_mask result = 0;                                                                                 \
  for (int i = 0; i < VEC_LANES; i++) result = (vec_mask)(result | (unsigned)((expression) & 1) << i); \
  return result

enum { VEC_LIMB_BITS_ = 52 };
#define VEC_LIMB_MASK_ ((UINT64_C(1) << VEC_LIMB_BITS_) - 1)

/* All ones where the bit of lane i is set. */
static inline uint64_t vec_lane_mask_(vec_mask mask, int i) {
  return -(uint64_t)((mask >> i) & 1);
}
/* 1 where x is not 0, without a comparison. */
static inline uint64_t vec_nonzero_(uint64_t x) {
  return (x | -x) >> 63;
}

VEC_INLINE vec vec_all(uint64_t x) {
  VEC_EACH_UNCOUNTED(x);
}
VEC_INLINE vec vec_zero(void) {
  return vec_all(0);
}
VEC_INLINE vec vec_load(const void *from) {
  vec result;
  memcpy(&result, from, sizeof result);
  return result;
}
VEC_INLINE void vec_store(void *to, vec a) {
  memcpy(to, &a, sizeof a);
}

VEC_INLINE vec vec_add(vec a, vec b) {
  VEC_EACH(a.lane[i] + b.lane[i]);
}
VEC_INLINE vec vec_sub(vec a, vec b) {
  VEC_EACH(a.lane[i] - b.lane[i]);
}
VEC_INLINE vec vec_and(vec a, vec b) {
  VEC_EACH(a.lane[i] & b.lane[i]);
}
VEC_INLINE vec vec_or(vec a, vec b) {
  VEC_EACH(a.lane[i] | b.lane[i]);
}
VEC_INLINE vec vec_xor(vec a, vec b) {
  VEC_EACH(a.lane[i] ^ b.lane[i]);
}
VEC_INLINE vec vec_clear(vec a, vec b) {
  VEC_EACH(a.lane[i] & ~b.lane[i]);
}
VEC_INLINE vec vec_shift_left(vec a, int bits) {
  VEC_EACH(a.lane[i] << bits);
}
VEC_INLINE vec vec_shift_right(vec a, int bits) {
  VEC_EACH(a.lane[i] >> bits);
}
VEC_INLINE vec vec_shift_right_signed(vec a, int bits) {
  VEC_EACH((uint64_t)((int64_t)a.lane[i] >> bits));
}
VEC_INLINE vec vec_rotate_right(vec a, int bits) {
  VEC_EACH(a.lane[i] >> bits | a.lane[i] << (64 - bits));
}
VEC_INLINE vec vec_double_plus_one(vec a) {
  VEC_EACH(a.lane[i] << 1 | 1);
}
VEC_INLINE vec vec_xor3(vec a, vec b, vec c) {
  VEC_EACH(a.lane[i] ^ b.lane[i] ^ c.lane[i]);
}
VEC_INLINE vec vec_choose(vec a, vec b, vec c) {
  VEC_EACH((a.lane[i] & b.lane[i]) | (~a.lane[i] & c.lane[i]));
}
VEC_INLINE vec vec_majority(vec a, vec b, vec c) {
  VEC_EACH((a.lane[i] & b.lane[i]) | (a.lane[i] & c.lane[i]) | (b.lane[i] & c.lane[i]));
}
VEC_INLINE vec vec_shift_right_each(vec a, vec bits) {
  VEC_EACH(a.lane[i] >> (bits.lane[i] & 63));
}

static inline unsigned __int128 vec_product_(uint64_t a, uint64_t b) {
  return (unsigned __int128)(a & VEC_LIMB_MASK_) * (b & VEC_LIMB_MASK_);
}
/* Not inlined: generated code has thousands of calls. */
static __attribute__((noinline, unused)) vec vec_madd_low(vec sum, vec a, vec b) {
  VEC_COUNT_MULTIPLICATION_();
  VEC_EACH_UNCOUNTED(sum.lane[i] + ((uint64_t)vec_product_(a.lane[i], b.lane[i]) & VEC_LIMB_MASK_));
}
static __attribute__((noinline, unused)) vec vec_madd_high(vec sum, vec a, vec b) {
  VEC_COUNT_MULTIPLICATION_();
  VEC_EACH_UNCOUNTED(sum.lane[i] + (uint64_t)(vec_product_(a.lane[i], b.lane[i]) >> VEC_LIMB_BITS_));
}

VEC_INLINE vec vec_multiply(vec a, vec b) {
  VEC_EACH(a.lane[i] * b.lane[i]);
}

VEC_INLINE vec_mask vec_equal(vec a, vec b) {
  VEC_EACH_BIT(1 ^ vec_nonzero_(a.lane[i] ^ b.lane[i]));
}
VEC_INLINE vec_mask vec_below(vec a, vec b) {
  VEC_EACH_BIT((((unsigned __int128)a.lane[i] - b.lane[i]) >> 64));
}
VEC_INLINE vec_mask vec_negative(vec a) {
  VEC_EACH_BIT(a.lane[i] >> 63);
}
VEC_INLINE vec_mask vec_any_bit(vec a, vec b) {
  VEC_EACH_BIT(vec_nonzero_(a.lane[i] & b.lane[i]));
}

VEC_INLINE vec vec_select(vec_mask mask, vec if_set, vec if_clear) {
  VEC_EACH(if_clear.lane[i] ^ ((if_clear.lane[i] ^ if_set.lane[i]) & vec_lane_mask_(mask, i)));
}
VEC_INLINE vec vec_masked_add(vec_mask mask, vec a, vec b) {
  VEC_EACH(a.lane[i] + (b.lane[i] & vec_lane_mask_(mask, i)));
}
VEC_INLINE vec vec_masked_sub(vec_mask mask, vec a, vec b) {
  VEC_EACH(a.lane[i] - (b.lane[i] & vec_lane_mask_(mask, i)));
}

#if VEC_LANES == 8
VEC_INLINE vec vec_set(uint64_t l0, uint64_t l1, uint64_t l2, uint64_t l3, uint64_t l4, uint64_t l5, uint64_t l6,
                       uint64_t l7) {
  return (vec){{l0, l1, l2, l3, l4, l5, l6, l7}};
}
/* The index is secret, so it must not become an address: every entry is read and masked. */
VEC_INLINE vec vec_lookup16(vec low, vec high, vec index) {
  VEC_COUNT_();
  vec result = vec_zero();
  for (int i = 0; i < VEC_LANES; i++) {
    for (uint64_t entry = 0; entry < 16; entry++) {
      uint64_t mask = vec_nonzero_((index.lane[i] & 15) ^ entry) - 1;
      result.lane[i] |= mask & (entry < 8 ? low.lane[entry] : high.lane[entry - 8]);
    }
  }
  return result;
}
VEC_INLINE vec vec_lookup8(vec table, vec index) {
  return vec_lookup16(table, table, index);
}
#endif

#undef VEC_EACH
#undef VEC_EACH_UNCOUNTED
#undef VEC_EACH_BIT
#undef VEC_COUNT_
#undef VEC_COUNT_MULTIPLICATION_

#endif /* VEC_PORTABLE */

/* In builds with BOUND_CHECKS: aborts when a lane, read as signed, is below `low` or above `high`. */
#ifdef BOUND_CHECKS
#include <stdio.h>
#include <stdlib.h>
static inline void vec_assert_within_(vec value, int64_t low, int64_t high, const char *where, int line) {
  int64_t lanes[VEC_LANES];
  vec_store(lanes, value);
  for (int i = 0; i < VEC_LANES; i++) {
    if (lanes[i] < low || lanes[i] > high) {
      fprintf(stderr, "%s:%d: lane %d: a limb is outside its proved bounds\n", where, line, i);
      abort();
    }
  }
}
#define VEC_ASSERT_WITHIN(value, low, high) vec_assert_within_((value), (low), (high), __FILE__, __LINE__)
#else
#define VEC_ASSERT_WITHIN(value, low, high) ((void)(value))
#endif

#endif
