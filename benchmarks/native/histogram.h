// A high dynamic range histogram: values of 0 ns to some minutes with a relative error below 1 %, in constant space.
//
// Buckets are log-linear: 128 linear steps in each power of two (Gil Tene's HDR layout; Debian 12 ships no C library
// of it). Recording is an index computation and an increment.
#pragma once

#include <array>
#include <cstdint>

#include "benchmarks/native/clock.h"

namespace load {

class Histogram {
 public:
  void record(Nanoseconds value);  // below 0 counts as 0, above the range as the range's end
  void merge(const Histogram &other);

  uint64_t count() const { return count_; }
  Nanoseconds minimum() const { return count_ ? minimum_ : 0; }
  Nanoseconds maximum() const { return maximum_; }
  double mean() const { return count_ ? sum_ / double(count_) : 0; }

  // The upper end of the lowest bucket at or below which the fraction `quantile` (0 to 1) of the values lies; never
  // above maximum(). 0 when empty.
  Nanoseconds at(double quantile) const;

  // Calls visit(upper_end, count) for each bucket that is not empty, in rising order.
  template <typename Visit>
  void each(Visit visit) const {
    for (unsigned index = 0; index < kBuckets; index++)
      if (buckets_[index]) visit(upper_end(index), buckets_[index]);
  }

 private:
  static constexpr unsigned kStepBits = 7;
  static constexpr unsigned kSteps = 1u << kStepBits;
  static constexpr unsigned kPowers = 40 - kStepBits;  // up to 2^40 ns, 18 minutes
  static constexpr unsigned kBuckets = kSteps * (kPowers + 1);

  static unsigned index_of(uint64_t value);
  static Nanoseconds upper_end(unsigned index);

  std::array<uint64_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
  double sum_ = 0;
  Nanoseconds minimum_ = INT64_MAX;
  Nanoseconds maximum_ = 0;
};

}  // namespace load
