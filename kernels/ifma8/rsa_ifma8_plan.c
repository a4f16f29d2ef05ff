/* Makes the RSA plan: measures a squaring in each form, and takes the cheapest schedule for every number of operations.
 *
 * Costs are counted in squarings of halves: an exponentiation to the power of b bits has b, and a multiplication for
 * every window; a check 18 with numbers twice as long, which are four times as expensive.
 *
 * Compiled without AVX-512 flags.
 */
#include "kernels/ifma8/rsa_ifma8_plan.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/testing_hooks.h"

enum { ALGORITHMS = KERNEL_RSA4096 + 1, CHECK = 18 * 4 };

static const char *const way_names[RSA_WAYS] = {[RSA_EIGHT_LANES] = "eight", [RSA_FOUR_LANES] = "four"};
static const char *const products_names[MONTGOMERY_WAYS] = {[MONTGOMERY_KARATSUBA] = "karatsuba",
                                                            [MONTGOMERY_SCHOOLBOOK] = "schoolbook"};

/* The number of the name; `count` if there is none. */
static unsigned find(const char *const names[], unsigned count, const char *name) {
  unsigned i = 0;
  while (i < count && (name == NULL || strcmp(names[i], name) != 0)) i++;
  return i;
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

static void measure(rsa_plan *plan, rsa_way way, void (*squaring_ns)(unsigned, double[MONTGOMERY_WAYS]),
                    unsigned limbs) {
  double ns[MONTGOMERY_WAYS];
  squaring_ns(limbs, ns);
  unsigned best = find(products_names, MONTGOMERY_WAYS, getenv("OFFLOAD_RSA_PRODUCTS"));
  if (best == MONTGOMERY_WAYS)
    best = ns[MONTGOMERY_SCHOOLBOOK] < ns[MONTGOMERY_KARATSUBA] ? MONTGOMERY_SCHOOLBOOK : MONTGOMERY_KARATSUBA;
  plan->products[way] = best;
  plan->squaring_ns[way] = ns[best];
}

static void make_native(void) {
  const rsa_way way = find(way_names, RSA_WAYS, getenv("OFFLOAD_RSA_WAY"));
  for (kernel_algorithm a = KERNEL_RSA2048; a <= KERNEL_RSA4096; a++) {
    rsa_plan *plan = &native[a];
    measure(plan, RSA_EIGHT_LANES, rsa_squaring_ns_ifma8, rsa_ifma8_half_limbs(a));
    measure(plan, RSA_FOUR_LANES, rsa_squaring_ns_ifma4, rsa_ifma8_half_limbs(a));
    choose(plan, half_bits(a));
    if (way != RSA_WAYS) force(plan, way);
  }
  /* Tiles of 15 limbs know one way only; the numbers of the check are made of tiles of 20, as RSA-4096's halves are. */
  memcpy(native[KERNEL_RSA3072].products, native[KERNEL_RSA4096].products, sizeof native->products);
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
  rsa_way way = find(way_names, RSA_WAYS, name);
  if (way < RSA_WAYS) force(&forced[way], way);
  if (way < RSA_WAYS || name[0] == 0) atomic_store(&forced_plan, way < RSA_WAYS ? &forced[way] : NULL);
  return way < RSA_WAYS || name[0] == 0;
}

static atomic_uint forced_products = MONTGOMERY_WAYS;

bool kernel_force_rsa_products(const char *name) {
  unsigned products = find(products_names, MONTGOMERY_WAYS, name);
  if (products == MONTGOMERY_WAYS && name[0] != 0) return false;
  atomic_store(&forced_products, products);
  return true;
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

montgomery_products rsa_plan_products(const rsa_plan *plan, rsa_way way) {
#ifdef TESTING_HOOKS
  unsigned products = atomic_load(&forced_products);
  if (products < MONTGOMERY_WAYS) return products;
#endif
  return plan->products[way];
}

/* Appends to the text, whose end it keeps; what does not fit is cut off, and KERNEL_PLAN_MAX is large enough. */
static __attribute__((format(printf, 2, 3))) void append(char text[KERNEL_PLAN_MAX], const char *format, ...) {
  size_t used = strlen(text);
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(text + used, KERNEL_PLAN_MAX - used, format, arguments);
  va_end(arguments);
}

void rsa_plan_describe(const rsa_plan *plan, char text[KERNEL_PLAN_MAX]) {
  text[0] = 0;
  append(text, "{\"ways\": {");
  for (rsa_way way = 0; way < RSA_WAYS; way++) {
    append(text, "%s\"%s\": {\"products\": \"%s\", \"squaring_ns\": %.1f}", way == 0 ? "" : ", ", way_names[way],
           products_names[rsa_plan_products(plan, way)], plan->squaring_ns[way]);
  }
  append(text, "}, \"schedule\": {");
  for (unsigned count = 1; count <= KERNEL_LANES; count++) {
    append(text, "%s\"%u\": {", count == 1 ? "" : ", ", count);
    const char *separator = "";
    for (rsa_way way = 0; way < RSA_WAYS; way++) {
      unsigned operations = plan->schedule[count].operations[way];
      if (operations == 0) continue;
      append(text, "%s\"%s\": %u", separator, way_names[way], operations);
      separator = ", ";
    }
    append(text, "}");
  }
  append(text, "}}");
}
