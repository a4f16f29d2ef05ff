// The JSON that tlsload prints.
#pragma once

#include <string>

#include "benchmarks/native/tlsload/options.h"
#include "benchmarks/native/tlsload/worker.h"

namespace load {

std::string report(const Options &options, const Results &results, Nanoseconds elapsed, Nanoseconds cpu);

}  // namespace load
