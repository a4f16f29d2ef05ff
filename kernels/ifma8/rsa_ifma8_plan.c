/* Makes the RSA plan: measures a squaring in each form, and takes the cheapest schedule for every number of operations.
 *
 * Costs are counted in squarings of halves: an exponentiation to the power of b bits has b, and a multiplication for
 * every window; a check 18 with numbers twice as long, which are four times as expensive; over the lanes, twice.
 *
 * Compiled without AVX-512 flags.
 */
#include "kernels/ifma8/rsa_ifma8_plan.h"

#include <float.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/testing_hooks.h"

enum { ALGORITHMS = KERNEL_RSA4096 + 1, TURNS = 8, CHECK = 18 * 4, LONE_CHECK = 18 * 2 };

static const char *const way_names[RSA_WAYS] = {
    [RSA_EIGHT_LANES] = "eight", [RSA_FOUR_LANES] = "four", [RSA_LONE] = "lone"};
static const char *const products_names[MONTGOMERY_WAYS] = {[MONTGOMERY_KARATSUBA] = "karatsuba",
                                                            [MONTGOMERY_SCHOOLBOOK] = "schoolbook"};

/* The number of the name; `count` if there is none. */
static unsigned find(const char *const names[], unsigned count, const char *name) {
  unsigned i = 0;
  while (i < count && (name == NULL || strcmp(names[i], name) != 0)) i++;
  return i;
}

/* The schedule that sends all operations one way. */
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

/* Nanoseconds of `count` operations that go one way. */
static double cost(const rsa_plan *plan, rsa_way way, unsigned count, unsigned bits) {
  const double per_pass = bits * (1 + 1.0 / 4), per_lone = bits * (1 + 1.0 / 5);
  const unsigned passes_of_eight = (count + 3) / 4, passes_of_four = (count + 1) / 2;
  double squarings;
  switch (way) {
    case RSA_EIGHT_LANES: squarings = passes_of_eight * per_pass + (count > 0 ? CHECK : 0); break;
    case RSA_FOUR_LANES: squarings = passes_of_four * (per_pass + CHECK); break;
    default: squarings = count * (per_lone + LONE_CHECK);
  }
  return squarings * plan->squaring_ns[way];
}

/* Every way serves fewer operations at the cost of more, so no batch costs more than a larger one. */
static void choose(rsa_plan *plan, unsigned bits) {
  for (unsigned count = 1; count <= KERNEL_LANES; count++) {
    double least = 0;
    for (unsigned eight = 0; eight <= count; eight++) {
      for (unsigned four = 0; four <= count - eight; four++) {
        const unsigned lone = count - eight - four;
        const double sum = cost(plan, RSA_EIGHT_LANES, eight, bits) + cost(plan, RSA_FOUR_LANES, four, bits) +
                           cost(plan, RSA_LONE, lone, bits);
        if (eight + four > 0 && sum >= least) continue;
        least = sum;
        plan->schedule[count] = (rsa_schedule){{(uint8_t)eight, (uint8_t)four, (uint8_t)lone}};
      }
    }
  }
}

static rsa_plan native[ALGORITHMS];
static pthread_once_t native_once = PTHREAD_ONCE_INIT;

/* Everything in turns, and the minimum of many short rounds: what else the host does spoils a few rounds of all alike,
 * and a core takes some 100 us until it runs 512-bit instructions at their full rate. */
static void measure(rsa_plan *plan, kernel_algorithm algorithm) {
  const unsigned limbs = rsa_ifma8_half_limbs(algorithm);
  double ns[RSA_WAYS][MONTGOMERY_WAYS];
  for (rsa_way way = 0; way < RSA_WAYS; way++) ns[way][0] = ns[way][1] = DBL_MAX;
  for (unsigned turn = 0; turn < TURNS; turn++) {
    rsa_squaring_ns_ifma8(limbs, ns[RSA_EIGHT_LANES]);
    rsa_squaring_ns_ifma4(limbs, ns[RSA_FOUR_LANES]);
    rsa_lone_squaring_ns_ifma8(algorithm, ns[RSA_LONE]);
  }
  const unsigned wanted = find(products_names, MONTGOMERY_WAYS, getenv("OFFLOAD_RSA_PRODUCTS"));
  for (rsa_way way = 0; way < RSA_WAYS; way++) {
    unsigned best =
        ns[way][MONTGOMERY_SCHOOLBOOK] < ns[way][MONTGOMERY_KARATSUBA] ? MONTGOMERY_SCHOOLBOOK : MONTGOMERY_KARATSUBA;
    if (wanted < MONTGOMERY_WAYS && way != RSA_LONE) best = wanted;
    plan->products[way] = best;
    plan->squaring_ns[way] = ns[way][best];
  }
}

static void make_native(void) {
  const rsa_way way = find(way_names, RSA_WAYS, getenv("OFFLOAD_RSA_WAY"));
  for (kernel_algorithm a = KERNEL_RSA2048; a <= KERNEL_RSA4096; a++) {
    rsa_plan *plan = &native[a];
    measure(plan, a);
    choose(plan, half_bits(a));
    if (way != RSA_WAYS) force(plan, way);
  }
  /* Tiles of 15 limbs know one way only; the numbers of the check are made of tiles of 20, as RSA-4096's halves are. */
  memcpy(native[KERNEL_RSA3072].products, native[KERNEL_RSA4096].products, sizeof native->products);
}
#endif

#ifdef TESTING_HOOKS
static rsa_plan forced[RSA_WAYS];
static rsa_plan portable = {.schedule = {[1] = {{0, 0, 1}},
                                         [2] = {{0, 2, 0}},
                                         [3] = {{3, 0, 0}},
                                         [4] = {{4, 0, 0}},
                                         [5] = {{4, 0, 1}},
                                         [6] = {{4, 2, 0}},
                                         [7] = {{7, 0, 0}},
                                         [8] = {{8, 0, 0}}}};
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
    append(text, "%s\"%s\": {", way == 0 ? "" : ", ", way_names[way]);
    if (way != RSA_LONE) append(text, "\"products\": \"%s\", ", products_names[rsa_plan_products(plan, way)]);
    append(text, "\"squaring_ns\": %.1f}", plan->squaring_ns[way]);
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
