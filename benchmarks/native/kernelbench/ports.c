/* The rate of the multiplier's ports; see kernelbench.h. */
#include "benchmarks/native/kernelbench/internal.h"

/* Twelve independent chains: more than the latency of 4 cycles times two ports. In assembly, since a compiler is free
 * to keep the sums in memory. */
enum { CHAINS = 12, TURNS = 20000 };

#define MADD(r, n) "vpmadd52luq %%" r "0, %%" r "0, %%" r n "\n\t"
#define RUN(r)                                                                                                        \
  do {                                                                                                                \
    unsigned turns = TURNS;                                                                                           \
    __asm__ volatile("vpxor %%xmm0, %%xmm0, %%xmm0\n"                                                               \
                     "1:\n\t" /* the sums begin with whatever the registers hold */                                 \
                     MADD(r, "1") MADD(r, "2") MADD(r, "3") MADD(r, "4") MADD(r, "5") MADD(r, "6")                  \
                     MADD(r, "7") MADD(r, "8") MADD(r, "9") MADD(r, "10") MADD(r, "11") MADD(r, "12")               \
                     "sub $1, %0\n\t"                                                                               \
                     "jnz 1b\n\t"                                                                                   \
                     "vzeroupper"                                                                                   \
                     : "+r"(turns)                                                                                  \
                     :                                                                                              \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                       "xmm11", "xmm12"); \
  } while (0)

double kernelbench_multiplications_per_us(unsigned bits, unsigned repeats) {
  const kernel_backend *vector = kernel_backend_by_name("ifma8");
  if (vector == NULL || !vector->usable() || (bits != 256 && bits != 512)) return 0;
  double best = 0;
  for (unsigned i = 0; i < repeats; i++) {
    int64_t start = nanoseconds();
    if (bits == 512) {
      RUN("zmm");
    } else {
      RUN("ymm");
    }
    double rate = (double)CHAINS * TURNS * 1e3 / (double)(nanoseconds() - start);
    if (rate > best) best = rate;
  }
  return best;
}
