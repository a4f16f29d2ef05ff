#include "benchmarks/native/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace load {

// Values below kSteps have a bucket each; a larger one keeps its top kStepBits + 1 bits: the power of two that it is
// in, and which of the kSteps steps of that power.
unsigned Histogram::index_of(uint64_t value) {
  if (value < kSteps) return unsigned(value);
  unsigned shift = unsigned(std::bit_width(value)) - 1 - kStepBits;
  unsigned index = (shift + 1) * kSteps + unsigned((value >> shift) - kSteps);
  return std::min(index, kBuckets - 1);
}

Nanoseconds Histogram::upper_end(unsigned index) {
  if (index < kSteps) return index;
  unsigned shift = index / kSteps - 1;
  uint64_t step = index % kSteps + kSteps;
  return Nanoseconds(((step + 1) << shift) - 1);
}

void Histogram::record(Nanoseconds value) {
  value = std::max<Nanoseconds>(value, 0);
  buckets_[index_of(uint64_t(value))]++;
  count_++;
  sum_ += double(value);
  minimum_ = std::min(minimum_, value);
  maximum_ = std::max(maximum_, value);
}

void Histogram::merge(const Histogram &other) {
  for (unsigned index = 0; index < kBuckets; index++) buckets_[index] += other.buckets_[index];
  count_ += other.count_;
  sum_ += other.sum_;
  minimum_ = std::min(minimum_, other.minimum_);
  maximum_ = std::max(maximum_, other.maximum_);
}

Nanoseconds Histogram::at(double quantile) const {
  if (count_ == 0) return 0;
  uint64_t wanted = std::max<uint64_t>(1, uint64_t(std::ceil(quantile * double(count_))));
  uint64_t seen = 0;
  for (unsigned index = 0; index < kBuckets; index++) {
    seen += buckets_[index];
    if (seen >= wanted) return std::min(upper_end(index), maximum_);
  }
  return maximum_;
}

}  // namespace load
