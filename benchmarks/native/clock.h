// Time and CPU, as the load tools count them. All values are nanoseconds.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace load {

using Nanoseconds = int64_t;

// CLOCK_MONOTONIC.
Nanoseconds now();

// CPU time of this process, user and system, all threads.
Nanoseconds own_cpu();

// CPU time of another process: the sum over its threads of the first field of /proc/PID/task/TID/schedstat, which the
// scheduler counts in nanoseconds. Threads that ended are not in it. Negative when the process cannot be read.
Nanoseconds process_cpu(pid_t pid);

}  // namespace load
