#include "benchmarks/native/tlsload/worker.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "benchmarks/native/argument.h"
#include "benchmarks/native/tlsload/tls_context.h"

namespace load {
namespace {

constexpr Nanoseconds kCloseWait = 1'000'000'000;  // for the server to close after our close_notify
constexpr Nanoseconds kIdle = 100'000'000;         // longest sleep, so that the end of the duration is noticed

}  // namespace

void Results::merge(const Results &other) {
  handshakes += other.handshakes;
  resumed += other.resumed;
  responses += other.responses;
  aborted += other.aborted;
  primed += other.primed;
  left_open += other.left_open;
  failures += other.failures;
  for (const auto &[reason, times] : other.reasons) reasons[reason] += times;
  targets.resize(std::max(targets.size(), other.targets.size()));
  for (size_t i = 0; i < other.targets.size(); i++) {
    targets[i].handshakes += other.targets[i].handshakes;
    targets[i].failures += other.targets[i].failures;
  }
  handshake.merge(other.handshake);
  response.merge(other.response);
  start_lag.merge(other.start_lag);
  finished = std::max(finished, other.finished);
  if (!other.version.empty()) {
    version = other.version;
    cipher = other.cipher;
    group = other.group;
    alpn = other.alpn;
  }
}

Worker::Worker(const Options &options, unsigned index)
    : options_(options),
      index_(index),
      shared_{options, make_context(options), {}},
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      random_(options.seed + index),
      room_(options.concurrency / options.threads + (index < options.concurrency % options.threads)),
      next_target_(index % options.targets.size()) {
  shared_.sessions.resize(options.targets.size());
  priming_.resize(options.targets.size());
  if (options.resume) keep_sessions(shared_.context.get());
  places_.resize(room_);
  for (uint32_t place = 0; place < room_; place++) free_.push_back(place);
}

Worker::~Worker() {
  close(epoll_);
}

Results Worker::run(Load &load) {
  load_ = &load;
  results_ = Results{};
  results_.targets.resize(options_.targets.size());
  arrivals_ = 0;
  arrival_ = load.begin;
  if (load.rate > 0) arrival_ = next_arrival();
  bool finished = false;
  while (true) {
    if (!finished) finished = start_due();
    if (finished && free_.size() == places_.size()) break;
    wait(finished);
    expire();
  }
  results_.finished = now();
  return std::move(results_);
}

// The n-th arrival of this thread; arrivals of the threads interleave evenly.
Nanoseconds Worker::next_arrival() {
  double gap = 1e9 / load_->rate;
  if (!options_.poisson) {
    double place = double(arrivals_++) * options_.threads + index_;
    return load_->begin + Nanoseconds(place * gap);
  }
  std::exponential_distribution<double> gaps(load_->rate / options_.threads);
  return arrival_ + Nanoseconds(gaps(random_) * 1e9);
}

bool Worker::take_from_budget() {
  if (!load_->count) return true;
  return load_->taken.fetch_add(1, std::memory_order_relaxed) < load_->count;
}

// With --resume, one connection gets the first session of a target and the others wait for it: a full handshake for
// each place would be a large part of a short run.
bool Worker::can_start() const {
  return !free_.empty() && !priming_[next_target_];
}

bool Worker::start_due() {
  Nanoseconds end = load_->duration ? load_->begin + load_->duration : INT64_MAX;
  if (load_->rate > 0) {
    // Arrivals that were due before the end are started even after it; otherwise the slowest would be left out.
    Nanoseconds time;
    while (arrival_ <= (time = now()) && arrival_ < end) {
      if (time > end && time - end > options_.timeout) {
        count_unstarted();
        return true;
      }
      if (!can_start()) return false;
      if (!take_from_budget()) return true;
      start(arrival_);
      arrival_ = next_arrival();
    }
    return arrival_ >= end;
  }
  while (can_start()) {
    Nanoseconds time = now();
    if (time >= end || !take_from_budget()) return true;
    start(time);
  }
  return false;
}

void Worker::count_unstarted() {
  Nanoseconds end = load_->begin + load_->duration;
  for (; arrival_ < end && take_from_budget(); arrival_ = next_arrival()) {
    results_.failures++;
    results_.reasons["not started: all --concurrency connections were busy until the end"]++;
  }
}

void Worker::start(Nanoseconds due) {
  uint32_t place = free_.back();
  free_.pop_back();
  Nanoseconds time = now();
  size_t target = next_target_;
  next_target_ = (next_target_ + 1) % options_.targets.size();
  Place &its = places_[place];
  its.generation++;
  its.connection = std::make_unique<Connection>(shared_, target, due, time);
  priming_[target] = its.connection->priming;
  if (load_->rate > 0) results_.start_lag.record(time - due);
  Nanoseconds limit = options_.timeout;
  if (options_.abort) limit = Nanoseconds(std::uniform_real_distribution<>(0, 1)(random_) * options_.abort_within);
  set_deadline(place, time + limit);
  its.connection->open();
  if (!its.connection->ended()) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.u64 = uint64_t(its.generation) << 32 | place;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, its.connection->fd(), &event);
  }
  settle(place);
}

void Worker::set_deadline(uint32_t place, Nanoseconds when) {
  Place &its = places_[place];
  deadlines_.erase({its.deadline, place});
  its.deadline = when;
  if (when) deadlines_.insert({when, place});
}

void Worker::wait(bool finished) {
  Nanoseconds time = now();
  Nanoseconds until = time + kIdle;
  if (!deadlines_.empty()) until = std::min(until, deadlines_.begin()->first);
  if (!finished && load_->rate > 0 && can_start()) until = std::min(until, arrival_);
  Nanoseconds sleep = std::max<Nanoseconds>(until - time, 0);
  timespec timeout{.tv_sec = sleep / 1'000'000'000, .tv_nsec = sleep % 1'000'000'000};
  epoll_event events[256];
  int ready = epoll_pwait2(epoll_, events, 256, &timeout, nullptr);
  for (int i = 0; i < ready; i++) {
    uint32_t place = uint32_t(events[i].data.u64);
    Place &its = places_[place];
    // The place may have been reused for another connection since the kernel reported this event.
    if (!its.connection || its.generation != uint32_t(events[i].data.u64 >> 32)) continue;
    auto before = its.connection->phase();
    its.connection->advance();
    if (before != Connection::Phase::kClosing && its.connection->phase() == Connection::Phase::kClosing)
      set_deadline(place, now() + std::min(kCloseWait, options_.timeout));
    settle(place);
  }
}

void Worker::expire() {
  if (deadlines_.empty()) return;
  Nanoseconds time = now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= time) {
    uint32_t place = deadlines_.begin()->second;
    Connection &connection = *places_[place].connection;
    if (options_.abort)
      connection.drop(random_() & 1);
    else
      connection.time_out();
    settle(place);
  }
}

void Worker::settle(uint32_t place) {
  Place &its = places_[place];
  if (!its.connection->ended()) return;
  count(*its.connection);
  set_deadline(place, 0);
  its.connection.reset();  // closes the socket, which also takes it out of epoll
  free_.push_back(place);
}

void Worker::count(const Connection &connection) {
  TargetCount &target = results_.targets[connection.target];
  if (connection.priming) priming_[connection.target] = false;
  if (connection.failed()) {
    results_.failures++;
    target.failures++;
    results_.reasons[connection.reason()]++;
    return;
  }
  results_.left_open += connection.left_open;
  if (connection.priming) {
    results_.primed++;
    return;
  }
  if (options_.abort) results_.aborted++;
  if (!connection.handshake_done) return;
  results_.handshakes++;
  target.handshakes++;
  results_.resumed += connection.resumed;
  results_.handshake.record(connection.handshake_done - connection.due);
  if (connection.response_done) {
    results_.responses++;
    results_.response.record(connection.response_done - connection.due);
  }
  SSL *ssl = connection.ssl();
  if (!results_.version.empty() || !ssl) return;
  results_.version = SSL_get_version(ssl);
  results_.cipher = SSL_CIPHER_standard_name(SSL_get_current_cipher(ssl));
  const char *group = SSL_get_group_name(SSL_get_group_id(ssl));
  results_.group = group ? group : "";
  const uint8_t *alpn;
  unsigned size;
  SSL_get0_alpn_selected(ssl, &alpn, &size);
  results_.alpn.assign(reinterpret_cast<const char *>(alpn), size);
}

}  // namespace load
