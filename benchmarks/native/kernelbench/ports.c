/* The rate of the multiplier's ports; see kernelbench.h. */
#include "benchmarks/native/kernelbench/internal.h"

/* Twelve independent chains: more than the latency of 4 cycles times two ports. In assembly, since a compiler is free
 * to keep the sums in memory. */
enum { CHAINS = 12, TURNS = 20000 };

#define MADD(r, n) "vpmadd52luq %%" r "0, %%" r "0, %%" r n "\n\t"
#define ADD(r, n) "vpaddq %%" r "0, %%" r n ", %%" r n "\n\t"
#define RUN(ONE, r)                                                                                                   \
  do {                                                                                                                \
    unsigned turns = TURNS;                                                                                           \
    __asm__ volatile("vpxor %%xmm0, %%xmm0, %%xmm0\n"                                                               \
                     "1:\n\t" /* the sums begin with whatever the registers hold */                                 \
                     ONE(r, "1") ONE(r, "2") ONE(r, "3") ONE(r, "4") ONE(r, "5") ONE(r, "6")                        \
                     ONE(r, "7") ONE(r, "8") ONE(r, "9") ONE(r, "10") ONE(r, "11") ONE(r, "12")                     \
                     "sub $1, %0\n\t"                                                                               \
                     "jnz 1b\n\t"                                                                                   \
                     "vzeroupper"                                                                                   \
                     : "+r"(turns)                                                                                  \
                     :                                                                                              \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                       "xmm11", "xmm12"); \
  } while (0)

typedef enum loop { MULTIPLY_512, MULTIPLY_256, ADD_512 } loop;

static double per_us(loop what, unsigned repeats) {
  const kernel_backend *vector = kernel_backend_by_name("ifma8");
  if (vector == NULL || !vector->usable()) return 0;
  double best = 0;
  for (unsigned i = 0; i < repeats; i++) {
    int64_t start = nanoseconds();
    switch (what) {
      case MULTIPLY_512: RUN(MADD, "zmm"); break;
      case MULTIPLY_256: RUN(MADD, "ymm"); break;
      case ADD_512: RUN(ADD, "zmm"); break;
    }
    double rate = (double)CHAINS * TURNS * 1e3 / (double)(nanoseconds() - start);
    if (rate > best) best = rate;
  }
  return best;
}

double kernelbench_multiplications_per_us(unsigned bits, unsigned repeats) {
  return bits == 512 || bits == 256 ? per_us(bits == 512 ? MULTIPLY_512 : MULTIPLY_256, repeats) : 0;
}

double kernelbench_additions_per_us(unsigned repeats) {
  return per_us(ADD_512, repeats);
}
