/* Times Montgomery squarings, for the plan. No secret: the numbers are arbitrary. */
#include "kernels/ifma8/montgomery_ifma8.h"
#include "kernels/ifma8/rsa_ifma8_plan.h"

enum { ROUNDS = 8, SQUARINGS = 8 };

/* Only rsa_plan_native calls this, once at a time, so the scratch memory may be static. */
void VEC_NAME(rsa_squaring_ns)(unsigned limbs, double ns[MONTGOMERY_WAYS]) {
  static montgomery_scratch scratch;
  static vec modulus[RSA_HALF_LIMBS_MAX], x[RSA_HALF_LIMBS_MAX];
  for (unsigned i = 0; i < limbs; i++) modulus[i] = vec_all(MONTGOMERY_LIMB_MASK >> (i + 1 == limbs ? 16 : 0));
  for (int round = 0; round < ROUNDS; round++) {
    for (montgomery_products products = 0; products < MONTGOMERY_WAYS; products++) {
      montgomery_modulus m = montgomery_prepare(products, limbs, modulus, vec_all(1), &scratch);
      montgomery_fold(&m);
      /* Again each time: schoolbook squares leave bits in their limbs that Karatsuba's differences cannot take. */
      for (unsigned i = 0; i < limbs; i++) x[i] = vec_all(i);
      double start = rsa_now_ns();
      for (int i = 0; i < SQUARINGS; i++) montgomery_square(&m, x, x);
      double time = (rsa_now_ns() - start) / SQUARINGS;
      if (time < ns[products]) ns[products] = time;
    }
  }
}
