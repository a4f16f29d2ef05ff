#include "kernels/stack.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { STACK_WIPED = 32 * 1024 };

/* Not inlined, so that its frame overlaps the frames of the code that has just returned. */
__attribute__((noinline)) void wipe_stack_below(void) {
  uint8_t frame[STACK_WIPED];
  memset(frame, 0, sizeof(frame));
  __asm__ __volatile__("" : : "r"(frame) : "memory");
}
