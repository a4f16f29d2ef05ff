#ifndef BENCHMARKS_KERNELBENCH_INTERNAL_H
#define BENCHMARKS_KERNELBENCH_INTERNAL_H

#include <time.h>

#include "benchmarks/native/kernelbench/kernelbench.h"
#include "kernels/key_internal.h"

struct kernelbench {
  kernel_algorithm algorithm;
  kernel_key *keys[KERNEL_LANES];
  kernel_workspace *workspace;
  kernel_lane lanes[KERNEL_LANES];
  size_t input_size;
  uint8_t input[KERNEL_LANES][KERNEL_OUTPUT_MAX], output[KERNEL_LANES][KERNEL_OUTPUT_MAX];
  void *intel;         /* dlopen's handle */
  void *intel_scratch; /* page-aligned */
  uint64_t nonces[KERNEL_LANES][EC_WORDS_MAX];
};

static inline int64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

#endif
