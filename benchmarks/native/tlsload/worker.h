// One event loop: starts connections when they are due, drives them to their end, and counts.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "benchmarks/native/histogram.h"
#include "benchmarks/native/tlsload/connection.h"

namespace load {

struct TargetCount {
  uint64_t handshakes = 0;
  uint64_t failures = 0;
};

struct Results {
  uint64_t handshakes = 0;
  uint64_t resumed = 0;
  uint64_t responses = 0;
  uint64_t aborted = 0;
  uint64_t primed = 0;
  uint64_t left_open = 0;
  uint64_t failures = 0;
  std::map<std::string, uint64_t> reasons;
  std::vector<TargetCount> targets;
  Histogram handshake;  // from when the connection was due
  Histogram response;   // from when it was due to the end of the response
  Histogram start_lag;  // open loop: from due to started; the generator's delay, and waiting for a free place
  Nanoseconds finished = 0;
  std::string version, cipher, group, alpn;  // of the last handshake

  void merge(const Results &other);
};

// How much all workers together are to start.
struct Load {
  uint64_t count = 0;  // 0: no bound
  Nanoseconds duration = 0;
  double rate = 0;
  Nanoseconds begin = 0;
  std::atomic<uint64_t> taken{0};
};

class Worker {
 public:
  Worker(const Options &options, unsigned index);
  ~Worker();

  Results run(Load &load);

 private:
  struct Place {
    std::unique_ptr<Connection> connection;
    uint32_t generation = 0;
    Nanoseconds deadline = 0;
  };
  using Deadline = std::pair<Nanoseconds, uint32_t>;  // when, which place

  bool start_due();  // true when there is nothing more to start, ever
  bool take_from_budget();
  bool can_start() const;
  Nanoseconds next_arrival();
  void start(Nanoseconds due);
  void wait(bool finished);
  void expire();
  void settle(uint32_t place);  // after a step: if it ended, counts it and frees its place
  void set_deadline(uint32_t place, Nanoseconds when);
  void count(const Connection &connection);
  void count_unstarted();

  const Options &options_;
  const unsigned index_;
  Shared shared_;
  int epoll_;
  std::mt19937_64 random_;
  std::vector<Place> places_;
  std::vector<uint32_t> free_;
  std::set<Deadline> deadlines_;
  unsigned room_;  // connections that this thread may have open
  size_t next_target_;
  std::vector<bool> priming_;  // by target: the connection that gets the first session is in progress
  Load *load_ = nullptr;
  Nanoseconds arrival_ = 0;  // open loop: when the next one is due
  uint64_t arrivals_ = 0;
  Results results_;
};

}  // namespace load
