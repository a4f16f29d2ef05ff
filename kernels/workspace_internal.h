/* The scratch memory of one thread, in secret memory: a vector kernel leaves nothing that depends on a key on a stack
 * or heap when a batch ends.
 *
 * A kernel overlays `area` with its own struct and sets `used` to the number of bytes (from the start) that it has
 * written; kernel_batch wipes those and sets `used` to 0. `lane` blocks belong to sign.c.
 */
#ifndef KERNELS_WORKSPACE_INTERNAL_H
#define KERNELS_WORKSPACE_INTERNAL_H

#include "kernels/kernels.h"

/* 8 lanes of RSA-4096: a window table of 16 entries of 40 limbs takes 40 KiB; the rest is for temporaries. */
enum { KERNEL_AREA_SIZE = 96 * 1024 };

struct kernel_workspace {
  _Alignas(4096) uint8_t area[KERNEL_AREA_SIZE];
  _Alignas(64) uint8_t lane_input[KERNEL_LANES][KERNEL_OUTPUT_MAX];
  _Alignas(64) uint8_t lane_output[KERNEL_LANES][KERNEL_OUTPUT_MAX];
  size_t used;
};

void kernel_workspace_wipe(kernel_workspace *workspace);

#endif
