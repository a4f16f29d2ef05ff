#include "benchmarks/native/clock.h"

#include <time.h>

namespace load {
namespace {

Nanoseconds read_clock(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return Nanoseconds(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

Nanoseconds now() {
  return read_clock(CLOCK_MONOTONIC);
}

Nanoseconds own_cpu() {
  return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

Nanoseconds process_cpu(pid_t pid) {
  clockid_t clock;
  return clock_getcpuclockid(pid, &clock) == 0 ? read_clock(clock) : -1;
}

}  // namespace load
