// The counts of keyload.
#pragma once

#include <array>
#include <map>
#include <string>

#include "benchmarks/native/histogram.h"

namespace load {

struct Tally {
  uint64_t operations = 0;  // answered OK
  uint64_t failures = 0;
  std::map<std::string, uint64_t> reasons;
  std::map<uint32_t, uint64_t> backends;    // enum wire_backend -> operations
  std::array<uint64_t, 9> by_batch_size{};  // operations that ran in a batch of that size; [0]: size unknown
  double kernel_us = 0;                     // run_us of each operation, divided by the size of its batch
  double run_us = 0, queue_us = 0;          // sums over operations
  Histogram latency;

  void fail(const std::string &reason) {
    failures++;
    reasons[reason]++;
  }
};

}  // namespace load
