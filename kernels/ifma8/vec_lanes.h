/* What numbers spread over the lanes of a vec need besides vec.h: moving from lane to lane. Eight lanes only; both
 * builds.
 *
 *   vec_lanes_down, vec_lanes_up   by a constant of 1 to 7 lanes, with zeros behind
 *   vec_spread1, vec_spread2       the first lane, or the first two in turn, in all lanes
 *   vec_load_spread1, _spread2     the same from memory, which takes no permutation
 */
#ifndef KERNELS_IFMA8_VEC_LANES_H
#define KERNELS_IFMA8_VEC_LANES_H

#include "kernels/ifma8/vec.h"

#ifndef VEC_PORTABLE

#define vec_lanes_down(a, lanes) _mm512_alignr_epi64(vec_zero(), (a), (lanes))
#define vec_lanes_up(a, lanes) _mm512_alignr_epi64((a), vec_zero(), 8 - (lanes))
VEC_INLINE vec vec_spread1(vec a) {
  return _mm512_broadcastq_epi64(_mm512_castsi512_si128(a));
}
VEC_INLINE vec vec_spread2(vec a) {
  return _mm512_shuffle_i64x2(a, a, 0);
}
VEC_INLINE vec vec_load_spread1(const uint64_t *from) {
  return vec_all(*from);
}
VEC_INLINE vec vec_load_spread2(const uint64_t *from) {
  return _mm512_broadcast_i64x2(_mm_loadu_si128((const __m128i *)from));
}

#else

/* Lane i is that of index i + offset, or 0 if there is none; an instruction, so it is counted. */
static inline vec vec_lanes_moved_(vec a, int offset) {
#ifdef TESTING_HOOKS
  vec_instructions++;
#endif
  vec result;
  for (int i = 0; i < VEC_LANES; i++) {
    result.lane[i] = i + offset >= 0 && i + offset < VEC_LANES ? a.lane[i + offset] : 0;
  }
  return result;
}
VEC_INLINE vec vec_lanes_down(vec a, int lanes) {
  return vec_lanes_moved_(a, lanes);
}
VEC_INLINE vec vec_lanes_up(vec a, int lanes) {
  return vec_lanes_moved_(a, -lanes);
}
VEC_INLINE vec vec_load_spread1(const uint64_t *from) {
  return vec_all(*from);
}
VEC_INLINE vec vec_load_spread2(const uint64_t *from) {
  vec result;
  for (int i = 0; i < VEC_LANES; i++) result.lane[i] = from[i & 1];
  return result;
}
VEC_INLINE vec vec_spread1(vec a) {
  a = vec_lanes_moved_(a, 0);
  return vec_load_spread1(a.lane);
}
VEC_INLINE vec vec_spread2(vec a) {
  a = vec_lanes_moved_(a, 0);
  return vec_load_spread2(a.lane);
}

#endif
#endif
