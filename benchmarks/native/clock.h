// Wall-clock and CPU time, as the load tools measure them. All values are nanoseconds.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace load {

using Nanoseconds = int64_t;

// CLOCK_MONOTONIC.
Nanoseconds now();

// CPU time of this process, user and system, all threads.
Nanoseconds own_cpu();

// CPU time of another process, user and system, all threads, including ended ones. Negative when there is no such
// process.
Nanoseconds process_cpu(pid_t pid);

}  // namespace load
