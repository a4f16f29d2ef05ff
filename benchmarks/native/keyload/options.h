// The options of keyload.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "benchmarks/native/clock.h"
#include "benchmarks/native/keyload/keys.h"

namespace load {

struct Options {
  std::string socket;
  std::vector<LoadKey> keys;
  unsigned connections = 1;
  unsigned in_flight = 64;  // per connection
  unsigned batch = 8;       // operations per message
  bool unary = false;
  double rate = 0;        // open loop: operations per second, all connections
  size_t input_size = 0;  // 0: a TLS 1.3 CertificateVerify
  bool check = false;
  uint64_t count = 0;
  Nanoseconds duration = 0;
  bool histogram = false;
  uint64_t warmup = 0;
  pid_t daemon = 0;
};

Options parse_options(int argc, char **argv);

}  // namespace load
