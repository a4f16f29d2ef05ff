/* Times Montgomery squarings of a number spread over the lanes, for the plan. No secret: the numbers are arbitrary, and
 * not even a modulus, as the time does not depend on them. */
#include "kernels/ifma8/montgomery_lone_ifma8.h"
#include "kernels/ifma8/rsa_ifma8_plan.h"

enum { ROUNDS = 8, SQUARINGS = 8 };

/* Only rsa_plan_native calls this, once at a time, so the memory may be static. */
void VEC_NAME(rsa_lone_squaring_ns)(kernel_algorithm algorithm, double ns[MONTGOMERY_WAYS]) {
  static lone_multiply *const multiply[] = {VEC_NAME(lone_multiply_pair_5), VEC_NAME(lone_multiply_pair_8),
                                            VEC_NAME(lone_multiply_pair_10)};
  static vec modulus[LONE_REGISTERS_MAX], folded[LONE_REGISTERS_MAX], inverse[LONE_REGISTERS_MAX],
      x[LONE_REGISTERS_MAX], scratch[2 * LONE_REGISTERS_MAX];
  const lone_modulus m = {modulus, folded, inverse, scratch};
  for (int round = 0; round < ROUNDS; round++) {
    double start = rsa_now_ns();
    for (int i = 0; i < SQUARINGS; i++) multiply[algorithm - KERNEL_RSA2048](x, x, x, &m);
    double time = (rsa_now_ns() - start) / SQUARINGS;
    if (time < ns[0]) ns[0] = time;
  }
}
