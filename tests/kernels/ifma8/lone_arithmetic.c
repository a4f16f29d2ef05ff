/* The Montgomery multiplication of one number over lanes as functions of plain arrays, for tests against Python's
 * integers. Numbers are uint64_t[registers][8]. Compiled together with what kernels/generate/lone.py writes. */
#include "kernels/ifma8/montgomery_lone_ifma8.h"

#define EXPORT __attribute__((visibility("default")))

/* result = a b / R mod N, a pair (numbers = 2) or a whole (1); in place of a or b when `in_place` is 1 or 2. */
EXPORT int multiply(unsigned registers, unsigned numbers, int in_place, const uint64_t *a, const uint64_t *b,
                    const uint64_t *modulus, const uint64_t *folded, const uint64_t *inverse, uint64_t *result) {
  static lone_multiply *const functions[2][3] = {
      {VEC_NAME(lone_multiply_whole_5), VEC_NAME(lone_multiply_whole_8), VEC_NAME(lone_multiply_whole_10)},
      {VEC_NAME(lone_multiply_pair_5), VEC_NAME(lone_multiply_pair_8), VEC_NAME(lone_multiply_pair_10)}};
  const uint64_t *const given[5] = {a, b, modulus, folded, inverse};
  vec numbers_of[5][LONE_REGISTERS_MAX], scratch[2 * LONE_REGISTERS_MAX], out[LONE_REGISTERS_MAX];
  const size_t size = registers * sizeof(vec);
  for (int i = 0; i < 5; i++) memcpy(numbers_of[i], given[i], size);
  memset(scratch, 0xa5, sizeof scratch);
  const lone_modulus m = {numbers_of[2], numbers_of[3], numbers_of[4], scratch};
  vec *to = in_place == 0 ? out : numbers_of[in_place - 1];
  functions[numbers - 1][registers / 3 - 1](to, numbers_of[0], numbers_of[1], &m);
  memcpy(result, to, size);
  return 0;
}
