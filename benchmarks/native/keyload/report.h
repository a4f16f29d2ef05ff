// The JSON that keyload prints.
#pragma once

#include <string>

#include "benchmarks/native/keyload/options.h"
#include "benchmarks/native/keyload/tally.h"

namespace load {

struct Spent {
  Nanoseconds elapsed = 0;
  Nanoseconds own_cpu = 0;
  Nanoseconds daemon_cpu = -1;  // negative: not measured
};

std::string report(const Options &options, const Tally &tally, const Spent &spent);

}  // namespace load
