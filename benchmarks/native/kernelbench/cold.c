/* A lone operation on a core that has not just run one; see kernelbench.h.
 *
 * Before an operation the core is idle (and whatever the host runs meanwhile takes the caches), or this thread sweeps
 * them as another process would: it writes a buffer that replaces the data caches and their TLB, in pages of 4 KiB, and
 * calls a function on every line of a page of code after the other, which replaces the instruction cache, its TLB, and
 * much of what the branch predictor knows. The sweep is what can be repeated; idleness is what happens.
 */
#include <string.h>
#include <sys/mman.h>

#include "benchmarks/native/kernelbench/internal.h"

enum {
  LINE = 64,
  DATA_SIZE = 32 << 20, /* many times the second-level cache, and 8192 pages: more than any TLB has */
  CODE_SIZE = 1 << 20,  /* 32 times the instruction cache */
  RETURN = 0xC3,        /* the instruction `ret` */
};

static uint8_t *map_data(void) {
  uint8_t *data = mmap(NULL, DATA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return NULL;
  madvise(data, DATA_SIZE, MADV_NOHUGEPAGE); /* the pages that processes have, or the TLB would be spared */
  memset(data, 1, DATA_SIZE);
  return data;
}

static uint8_t *map_code(void) {
  uint8_t *code = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) return NULL;
  madvise(code, CODE_SIZE, MADV_NOHUGEPAGE);
  memset(code, RETURN, CODE_SIZE);
  if (mprotect(code, CODE_SIZE, PROT_READ | PROT_EXEC) == 0) return code;
  munmap(code, CODE_SIZE);
  return NULL;
}

static bool sweep(void) {
  static uint8_t *data, *code; /* for as long as the process lives */
  if (data == NULL) data = map_data();
  if (code == NULL) code = map_code();
  if (data == NULL || code == NULL) return false;
  for (size_t i = 0; i < DATA_SIZE; i += LINE) ++*(volatile uint8_t *)&data[i];
  for (size_t i = 0; i < CODE_SIZE; i += LINE) {
    void (*function)(void);
    uint8_t *address = &code[i];
    memcpy(&function, &address, sizeof function); /* ISO C has no cast from data to code */
    function();
  }
  return true;
}

static void idle(unsigned microseconds) {
  struct timespec duration = {.tv_sec = microseconds / 1000000, .tv_nsec = microseconds % 1000000 * 1000L};
  nanosleep(&duration, NULL);
}

int kernelbench_before(unsigned before, unsigned idle_us) {
  switch (before) {
    case BENCH_WARM: return 0;
    case BENCH_IDLE: idle(idle_us); return 0;
    case BENCH_SWEPT: return sweep() ? 0 : BENCH_UNAVAILABLE;
    default: return BENCH_UNAVAILABLE;
  }
}

static int64_t cpu_nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t kernelbench_lone(kernelbench *bench, const char *name, unsigned before, unsigned idle_us, int64_t *cpu_ns) {
  if (before == BENCH_WARM) {
    int64_t first = kernelbench_ours(bench, name, 1, 1);
    if (first < 0) return first;
  }
  int disturbed = kernelbench_before(before, idle_us);
  if (disturbed != 0) return disturbed;
  int64_t cpu = cpu_nanoseconds(); /* a system call, so the clock that it surrounds is read closer to the operation */
  int64_t time = kernelbench_ours(bench, name, 1, 1);
  *cpu_ns = cpu_nanoseconds() - cpu;
  return time;
}
