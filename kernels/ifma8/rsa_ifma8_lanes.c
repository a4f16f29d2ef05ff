/* Runs an RSA batch: divides it among the forms that the kernels are built in, as the plan of the processor says.
 *
 * Compiled without AVX-512 flags. Public: the number of operations.
 */
#include "kernels/ifma8/rsa_ifma8_plan.h"

/* The entry points of one build, and how many operations one call of each takes. */
typedef struct form_table {
  rsa_run *run[RSA_WAYS];
} form_table;
static const size_t at_once[RSA_WAYS] = {[RSA_EIGHT_LANES] = 8, [RSA_FOUR_LANES] = 2, [RSA_LONE] = 1};

static void run(const form_table *build, const rsa_plan *plan, kernel_algorithm algorithm, kernel_lane lanes[],
                size_t count, kernel_workspace *workspace) {
  const rsa_schedule schedule = plan->schedule[count];
  size_t first = 0;
  for (rsa_way way = 0; way < RSA_WAYS; way++) {
    for (size_t left = schedule.operations[way]; left > 0;) {
      size_t now = left < at_once[way] ? left : at_once[way];
      build->run[way](algorithm, rsa_plan_products(plan, way), lanes, first, now, workspace);
      first += now;
      left -= now;
    }
  }
}

#define ENTRY_POINT(name, algorithm, build, plan)                                                    \
  void name##_private_ifma8##build(kernel_lane lanes[], size_t count, kernel_workspace *workspace) { \
    run(&forms##build, plan(algorithm), algorithm, lanes, count, workspace);                         \
  }

#ifdef KERNELS_HAVE_IFMA8
static const form_table forms = {{rsa_private_ifma8, rsa_private_ifma4, rsa_lone_private_ifma8}};
ENTRY_POINT(rsa2048, KERNEL_RSA2048, , rsa_plan_native)
ENTRY_POINT(rsa3072, KERNEL_RSA3072, , rsa_plan_native)
ENTRY_POINT(rsa4096, KERNEL_RSA4096, , rsa_plan_native)
#endif
#ifdef TESTING_HOOKS
static const form_table forms_portable = {
    {rsa_private_ifma8_portable, rsa_private_ifma4_portable, rsa_lone_private_ifma8_portable}};
ENTRY_POINT(rsa2048, KERNEL_RSA2048, _portable, rsa_plan_portable)
ENTRY_POINT(rsa3072, KERNEL_RSA3072, _portable, rsa_plan_portable)
ENTRY_POINT(rsa4096, KERNEL_RSA4096, _portable, rsa_plan_portable)
#endif
