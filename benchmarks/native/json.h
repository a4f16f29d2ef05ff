// Writes JSON with correct commas and escapes; the caller has to balance begin and end.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include "benchmarks/native/histogram.h"

namespace load {

class Json {
 public:
  Json &begin_object() { return open('{'); }
  Json &end_object() { return close('}'); }
  Json &begin_array() { return open('['); }
  Json &end_array() { return close(']'); }
  Json &key(std::string_view name);

  Json &value(std::string_view text);
  Json &value(const char *text) { return value(std::string_view(text)); }
  Json &value(bool flag) { return raw(flag ? "true" : "false"); }
  Json &value(double number);  // null when not finite
  template <std::integral Integer>
  Json &value(Integer number) {
    return raw(std::to_string(number));
  }
  Json &null() { return raw("null"); }

  template <typename Value>
  Json &field(std::string_view name, const Value &content) {
    key(name);
    return value(content);
  }

  // {"count", "min", "mean", "p50", "p90", "p99", "p99_9", "max"} in milliseconds; with `buckets` also the histogram
  // itself: [[upper end in milliseconds, count], ...].
  Json &latencies(std::string_view name, const Histogram &histogram, bool buckets);

  const std::string &text() const { return text_; }

 private:
  Json &open(char bracket);
  Json &close(char bracket);
  Json &raw(std::string_view token);
  void separate();

  std::string text_;
  bool first_ = true;
  bool after_key_ = false;
};

}  // namespace load
