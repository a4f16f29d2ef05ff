/* Times Montgomery squarings, for the plan. No secret: the numbers are arbitrary. */
#include <time.h>

#include "kernels/ifma8/montgomery_ifma8.h"
#include "kernels/ifma8/rsa_ifma8_plan.h"

enum { ROUNDS = 8, SQUARINGS = 8 };

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

/* Only rsa_plan_for calls this, once at a time, so the scratch memory may be static. */
double VEC_NAME(rsa_squaring_ns)(unsigned limbs) {
  static montgomery_scratch scratch;
  static vec modulus[RSA_HALF_LIMBS_MAX], x[RSA_HALF_LIMBS_MAX];
  for (unsigned i = 0; i < limbs; i++) modulus[i] = vec_all(MONTGOMERY_LIMB_MASK >> (i + 1 == limbs ? 16 : 0));
  for (unsigned i = 0; i < limbs; i++) x[i] = vec_all(i);
  montgomery_modulus m = montgomery_prepare(limbs, modulus, vec_all(1), &scratch);
  montgomery_fold(&m);
  double best = 1e18;
  /* The minimum of short rounds: an interrupt spoils one of them only. */
  for (int round = 0; round < ROUNDS; round++) {
    double start = now_ns();
    for (int i = 0; i < SQUARINGS; i++) montgomery_square(&m, x, x);
    double time = now_ns() - start;
    if (time < best) best = time;
  }
  return best / SQUARINGS;
}
