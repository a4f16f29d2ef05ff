#include "benchmarks/native/json.h"

#include <cmath>
#include <cstdio>

namespace load {

void Json::separate() {
  if (!first_ && !after_key_) text_ += ", ";
  first_ = false;
  after_key_ = false;
}

Json &Json::open(char bracket) {
  separate();
  text_ += bracket;
  first_ = true;
  return *this;
}

Json &Json::close(char bracket) {
  text_ += bracket;
  first_ = false;
  return *this;
}

Json &Json::raw(std::string_view token) {
  separate();
  text_ += token;
  return *this;
}

Json &Json::key(std::string_view name) {
  value(name);
  text_ += ": ";
  after_key_ = true;
  return *this;
}

Json &Json::value(std::string_view text) {
  separate();
  text_ += '"';
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      text_ += '\\';
      text_ += char(c);
    } else if (c < 0x20 || c >= 0x7f) {  // bytes that are not ASCII came from the network: written as Latin-1
      char escape[8];
      snprintf(escape, sizeof escape, "\\u%04x", c);
      text_ += escape;
    } else {
      text_ += char(c);
    }
  }
  text_ += '"';
  return *this;
}

Json &Json::value(double number) {
  if (!std::isfinite(number)) return null();
  char text[40];
  snprintf(text, sizeof text, "%.6g", number);
  return raw(text);
}

Json &Json::latencies(std::string_view name, const Histogram &histogram, bool buckets) {
  auto milliseconds = [](double nanoseconds) { return nanoseconds / 1e6; };
  key(name).begin_object();
  field("count", histogram.count());
  field("min", milliseconds(double(histogram.minimum())));
  field("mean", milliseconds(histogram.mean()));
  field("p50", milliseconds(double(histogram.at(0.5))));
  field("p90", milliseconds(double(histogram.at(0.9))));
  field("p99", milliseconds(double(histogram.at(0.99))));
  field("p99_9", milliseconds(double(histogram.at(0.999))));
  field("max", milliseconds(double(histogram.maximum())));
  if (!buckets) return end_object();
  key("buckets").begin_array();
  histogram.each([&](Nanoseconds upper_end, uint64_t count) {
    begin_array().value(milliseconds(double(upper_end))).value(count).end_array();
  });
  return end_array().end_object();
}

}  // namespace load
