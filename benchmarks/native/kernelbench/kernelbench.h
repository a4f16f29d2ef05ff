/* A shared library for ctypes: times the contenders of benchmarks.kernels that are called from C, each call separately.
 *
 * A bench has eight keys of one algorithm and one input per lane. Times are nanoseconds of one call (the fastest of
 * `repeats`), negative when it cannot be run. Single-threaded.
 */
#ifndef BENCHMARKS_KERNELBENCH_H
#define BENCHMARKS_KERNELBENCH_H

#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct kernelbench kernelbench;

enum { BENCH_UNAVAILABLE = -1, BENCH_FAILED = -2 };

/* NULL when the algorithm does not exist or keys cannot be generated. */
EXPORT kernelbench *kernelbench_new(const char *algorithm);
EXPORT void kernelbench_free(kernelbench *bench);

/* Times one kernel_batch of `count` operations, with eight different keys, on the backend of that name: the cost for a
 * daemon, including the fault check. BENCH_FAILED when a lane fails or has to be redone. */
EXPORT int64_t kernelbench_ours(kernelbench *bench, const char *backend, unsigned count, unsigned repeats);

/* Times Intel's kernel on eight operations with the same keys. `library` is libcrypto_mb.so; its stack begins `shift`
 * bytes lower than usual (its speed depends on the alignment). */
EXPORT int64_t kernelbench_crypto_mb(kernelbench *bench, const char *library, unsigned shift, unsigned repeats);

/* How the core was left before a lone operation: as the operation before left it, idle, or with its caches swept. */
enum { BENCH_WARM, BENCH_IDLE, BENCH_SWEPT };

/* Leaves this core so: sleeps `idle_us`, or sweeps the caches. For contenders that are not called from C. Returns 0, or
 * BENCH_UNAVAILABLE. */
EXPORT int kernelbench_before(unsigned before, unsigned idle_us);

/* Times one kernel_batch of one operation after that (for BENCH_WARM: after another one), and sets *cpu_ns to the CPU
 * time of this thread for it. */
EXPORT int64_t kernelbench_lone(kernelbench *bench, const char *backend, unsigned before, unsigned idle_us,
                                int64_t *cpu_ns);

/* How many independent vpmadd52 of `bits` bits (512 or 256) this core runs per microsecond: the best of `repeats`; 0 if
 * the core does not have the instruction. */
EXPORT double kernelbench_multiplications_per_us(unsigned bits, unsigned repeats);

/* The same of additions (vpaddq) of 512 bits. */
EXPORT double kernelbench_additions_per_us(unsigned repeats);

/* What our backend of that name chose for this processor, as JSON; "" when nothing was. Valid until the next call. */
EXPORT const char *kernelbench_plan(const char *algorithm, const char *backend);

#endif
