/* What a batch costs on each backend, and what follows from it: which backend runs it, and how many operations it
 * should have. Pure; calibrate.c fills in the measurements.
 */
#ifndef OFFLOAD_COST_MODEL_H
#define OFFLOAD_COST_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"

enum { COST_BACKENDS_MAX = 4, COST_NO_CROSSOVER = KERNEL_LANES + 1 };

#define COST_UNAVAILABLE UINT64_MAX

typedef struct cost_model {
  /* Inputs: */
  unsigned backends;                                                   /* in use; index 0 is software */
  uint64_t ns[COST_BACKENDS_MAX][KERNEL_ALGORITHMS][KERNEL_LANES + 1]; /* nanoseconds of a batch of 1..8 */
  uint64_t overhead_ns;                                                /* of any batch, beside the kernel */
  /* Derived by cost_model_settle: */
  uint8_t best[KERNEL_ALGORITHMS][KERNEL_LANES + 1];      /* cheapest backend for that many operations */
  uint64_t best_ns[KERNEL_ALGORITHMS][KERNEL_LANES + 1];  /* its time, with the overhead */
  uint8_t when_busy[KERNEL_ALGORITHMS][KERNEL_LANES + 1]; /* operations to take when that many are queued */
  uint8_t when_idle[KERNEL_ALGORITHMS][KERNEL_LANES + 1]; /* the same while another shard has nothing to do */
} cost_model;

/* Rough times, for the moment before calibration: software alone. */
void cost_model_defaults(cost_model *model);

void cost_model_settle(cost_model *model);

/* Measured time of a batch, COST_UNAVAILABLE where the backend does not run the class. */
static inline uint64_t cost_model_ns(const cost_model *model, unsigned backend, kernel_algorithm algorithm,
                                     unsigned count) {
  return model->ns[backend][algorithm][count];
}

/* The smallest batch that goes to the backend of that index; COST_NO_CROSSOVER when none does. */
unsigned cost_model_crossover(const cost_model *model, kernel_algorithm algorithm, unsigned backend);

/* How many of `available` (1 or more) operations to put into the next batch. */
unsigned cost_model_batch_size(const cost_model *model, kernel_algorithm algorithm, unsigned available,
                               bool others_idle);

#endif
