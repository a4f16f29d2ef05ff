/* Makes the RSA plan: measures a squaring in each form, and takes the cheapest schedule for every number of operations.
 *
 * Costs are counted in squarings of halves: an exponentiation to the power of b bits has b, and a multiplication for
 * every window; a check 18 with numbers twice as long, which are four times as expensive.
 *
 * Compiled without AVX-512 flags.
 */
#include "kernels/ifma8/rsa_ifma8_plan.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/testing_hooks.h"

enum { ALGORITHMS = KERNEL_RSA4096 + 1, CHECK = 18 * 4 };

static const char *const names[RSA_WAYS] = {[RSA_EIGHT_LANES] = "eight", [RSA_FOUR_LANES] = "four"};

/* RSA_WAYS if there is none of that name. */
static rsa_way way_named(const char *name) {
  rsa_way way = 0;
  while (way < RSA_WAYS && strcmp(names[way], name) != 0) way++;
  return way;
}

/* Every schedule but that of a forced plan. */
static rsa_schedule all_by(rsa_way way, unsigned count) {
  rsa_schedule schedule = {0};
  schedule.operations[way] = (uint8_t)count;
  return schedule;
}

static void force(rsa_plan *plan, rsa_way way) {
  for (unsigned count = 1; count <= KERNEL_LANES; count++) plan->schedule[count] = all_by(way, count);
}

#ifdef KERNELS_HAVE_IFMA8
static unsigned half_bits(kernel_algorithm algorithm) {
  return (unsigned)kernel_output_size(algorithm) * 8 / 2;
}

static double cost(const rsa_plan *plan, rsa_schedule schedule, unsigned bits) {
  const double exponentiation = bits * (1 + 1.0 / 4);
  unsigned eight = schedule.operations[RSA_EIGHT_LANES], four = schedule.operations[RSA_FOUR_LANES];
  return plan->squaring_ns[RSA_EIGHT_LANES] * ((eight + 3) / 4 * exponentiation + (eight > 0) * CHECK) +
         plan->squaring_ns[RSA_FOUR_LANES] * ((four + 1) / 2 * (exponentiation + CHECK));
}

/* Every way serves fewer operations at the cost of more, so no batch costs more than a larger one. */
static void choose(rsa_plan *plan, unsigned bits) {
  for (unsigned count = 1; count <= KERNEL_LANES; count++) {
    rsa_schedule best = all_by(RSA_EIGHT_LANES, count);
    for (unsigned eight = 0; eight < count; eight++) {
      rsa_schedule other = {0};
      other.operations[RSA_EIGHT_LANES] = (uint8_t)eight;
      other.operations[RSA_FOUR_LANES] = (uint8_t)(count - eight);
      if (cost(plan, other, bits) < cost(plan, best, bits)) best = other;
    }
    plan->schedule[count] = best;
  }
}

static rsa_plan native[ALGORITHMS];
static pthread_once_t native_once = PTHREAD_ONCE_INIT;

static void make_native(void) {
  const char *name = getenv("OFFLOAD_RSA_WAY");
  const rsa_way way = name == NULL ? RSA_WAYS : way_named(name);
  for (kernel_algorithm a = KERNEL_RSA2048; a <= KERNEL_RSA4096; a++) {
    rsa_plan *plan = &native[a];
    plan->squaring_ns[RSA_EIGHT_LANES] = rsa_squaring_ns_ifma8(rsa_ifma8_half_limbs(a));
    plan->squaring_ns[RSA_FOUR_LANES] = rsa_squaring_ns_ifma4(rsa_ifma8_half_limbs(a));
    choose(plan, half_bits(a));
    if (way != RSA_WAYS) force(plan, way);
  }
}
#endif

#ifdef TESTING_HOOKS
static rsa_plan forced[RSA_WAYS];
static rsa_plan portable = {.schedule = {[1] = {{0, 1}},
                                         [2] = {{0, 2}},
                                         [3] = {{3, 0}},
                                         [4] = {{4, 0}},
                                         [5] = {{4, 1}},
                                         [6] = {{4, 2}},
                                         [7] = {{7, 0}},
                                         [8] = {{8, 0}}}};
static _Atomic(const rsa_plan *) forced_plan;

bool kernel_force_rsa_way(const char *name) {
  rsa_way way = way_named(name);
  if (way < RSA_WAYS) force(&forced[way], way);
  if (way < RSA_WAYS || name[0] == 0) atomic_store(&forced_plan, way < RSA_WAYS ? &forced[way] : NULL);
  return way < RSA_WAYS || name[0] == 0;
}

const rsa_plan *rsa_plan_portable(kernel_algorithm algorithm) {
  (void)algorithm;
  const rsa_plan *instead = atomic_load(&forced_plan);
  return instead != NULL ? instead : &portable;
}
#endif

#ifdef KERNELS_HAVE_IFMA8
const rsa_plan *rsa_plan_native(kernel_algorithm algorithm) {
#ifdef TESTING_HOOKS
  const rsa_plan *instead = atomic_load(&forced_plan);
  if (instead != NULL) return instead;
#endif
  pthread_once(&native_once, make_native);
  return &native[algorithm];
}
#endif
