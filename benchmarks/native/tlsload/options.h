// The options of tlsload.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

#include "benchmarks/native/clock.h"

namespace load {

struct Target {
  std::string name;  // as given: host:port
  sockaddr_storage address{};
  socklen_t address_size = 0;
};

struct Options {
  std::vector<Target> targets;

  // Load. Open loop when rate > 0.
  unsigned concurrency = 16;
  double rate = 0;  // arrivals per second, all threads
  bool poisson = false;
  unsigned threads = 1;
  uint64_t count = 0;        // connections; 0: no bound
  Nanoseconds duration = 0;  // how long connections are started; 0: no bound
  bool histogram = false;
  uint64_t warmup = 0;  // the first connections, made but not reported
  Nanoseconds timeout = 10'000'000'000;

  // Per connection.
  std::string get;  // path of the request; empty: handshake only
  bool plaintext = false;
  bool resume = false;
  bool abort = false;
  Nanoseconds abort_within = 3'000'000;
  uint64_t seed = 1;

  // TLS.
  uint16_t min_version = 0, max_version = 0;
  std::string groups, ciphers, sni, ca, certificate, key;
  std::string alpn;  // wire form: each name behind its length
  std::vector<uint16_t> verify_algorithms;
};

Options parse_options(int argc, char **argv);

}  // namespace load
