/* The RSA plan of a processor: which of the forms that the kernels are built in serves how many operations.
 *
 * Processors differ in what they do fastest (one 512-bit multiplication per cycle or two), so the forms are measured
 * once per process, and this is the one place that keeps what was chosen. Public: the plan depends on the processor and
 * on sizes only.
 */
#ifndef KERNELS_IFMA8_RSA_IFMA8_PLAN_H
#define KERNELS_IFMA8_RSA_IFMA8_PLAN_H

#include <time.h>

#include "kernels/ifma8/rsa_ifma8.h"

typedef enum rsa_way {
  RSA_EIGHT_LANES, /* 4 operations per exponentiation, 8 per check */
  RSA_FOUR_LANES,  /* 2 operations per exponentiation, 4 per check, of which 2 are used */
  RSA_LONE,        /* 1, spread over the lanes */
  RSA_WAYS,
} rsa_way;

/* How many operations of a batch go each way; they are taken in the order of rsa_way. */
typedef struct rsa_schedule {
  uint8_t operations[RSA_WAYS];
} rsa_schedule;

typedef struct rsa_plan {
  montgomery_products products[RSA_WAYS];  /* the faster; RSA_LONE has no choice */
  double squaring_ns[RSA_WAYS];            /* what was measured: one Montgomery squaring of halves */
  rsa_schedule schedule[KERNEL_LANES + 1]; /* by the number of operations in the batch; the first is empty */
} rsa_plan;

/* The plan of this processor. The first call measures, for about four milliseconds; loading an RSA key calls it. The
 * environment variable OFFLOAD_RSA_WAY=eight|four|lone (read then) sends all operations one way, and
 * OFFLOAD_RSA_PRODUCTS=karatsuba|schoolbook makes all products in one. */
const rsa_plan *rsa_plan_native(kernel_algorithm algorithm);
/* The plan as a JSON object: products and nanoseconds of a squaring by way, and the schedules of 1 to 8 operations. */
void rsa_plan_describe(const rsa_plan *plan, char text[KERNEL_PLAN_MAX]);
/* How a plan makes products, unless tests force it. */
montgomery_products rsa_plan_products(const rsa_plan *plan, rsa_way way);
#ifdef TESTING_HOOKS
/* The plan of the portable build is fixed and has every way, so that tests do not depend on the host. */
const rsa_plan *rsa_plan_portable(kernel_algorithm algorithm);
#endif

static inline double rsa_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

/* rsa_ifma8_measure.c, once for each number of lanes: a few rounds of squarings of `limbs` limbs, each way to make
 * products; nanoseconds of one squaring, where that is less than what `ns` has. */
void rsa_squaring_ns_ifma8(unsigned limbs, double ns[MONTGOMERY_WAYS]);
void rsa_squaring_ns_ifma4(unsigned limbs, double ns[MONTGOMERY_WAYS]);
/* rsa_lone_ifma8_measure.c: the same for an operation spread over the lanes, whose products are made one way: ns[0]. */
void rsa_lone_squaring_ns_ifma8(kernel_algorithm algorithm, double ns[MONTGOMERY_WAYS]);

#endif
