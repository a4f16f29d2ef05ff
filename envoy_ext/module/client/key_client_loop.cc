// The key client's loop: a whole turn on its own thread, a short turn on a worker.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "envoy_ext/module/client/key_client.h"

namespace tls_offload {
namespace {

// A worker that announced another exchange and hangs before it delays answers at most this long.
constexpr Duration kExchangeGap = std::chrono::milliseconds(10);

}  // namespace

// A short turn of the loop, for what the worker waits for; the rest is left to the thread.
void KeyClient::exchange(bool again) {
  bool thread_is_needed;
  {
    std::lock_guard loop(loop_mutex_);
    Time now = Clock::now();
    bool expects_answers = !operations_.empty() && connections_.established();
    take_inbox();
    send_waiting(now);
    muted_ = again && expects_answers;
    if (muted_) last_exchange_ = now;
    connections_.flush_current();
    if (expects_answers && connections_.current() != nullptr) connections_.service_current();
    connections_.await_current(muted_);
    bool sleeps_too_long = operations_.next_due() < sleeps_until_ || (muted_ && now + 2 * kExchangeGap < sleeps_until_);
    bool can_send = connections_.established() && operations_.any_waits();
    bool retires = connections_.current() != nullptr && connections_.current()->retiring();
    bool changed = connections_.take_changed();
    thread_is_needed =
        taken_.stop || sleeps_too_long || std::exchange(thread_has_work_, false) || changed || can_send || retires;
  }
  if (thread_is_needed) wake();
}

void KeyClient::run() {
  std::unique_lock loop(loop_mutex_);
  while (!taken_.stop) {
    Time now = Clock::now();
    connections_.connect_when_due(now);
    identities_.ask(connections_.current(), now);
    send_waiting(now);
    connections_.flush_all();
    connections_.retire();
    Time unanswered = operations_.expire(now, connections_.state(), connections_.current());
    connections_.drop_silent(now, unanswered);
    sleep(loop, next_event(Clock::now()));
    take_inbox();
  }
  operations_.fail_all(Failure::Unavailable, "the listener is being removed");
}

void KeyClient::take_inbox() {
  {
    std::lock_guard lock(mutex_);
    std::swap(taken_.submitted, inbox_.submitted);
    std::swap(taken_.cancelled, inbox_.cancelled);
    std::swap(taken_.wanted, inbox_.wanted);
    taken_.stop = inbox_.stop;
  }
  for (const auto &watch : taken_.wanted) thread_has_work_ = identities_.want(watch) || thread_has_work_;
  taken_.wanted.clear();
  for (OperationPtr &operation : taken_.submitted) {
    const Operation *accepted = operation.get();  // it lives until it is finished
    if (!operations_.accept(std::move(operation))) continue;
    if (accepted->kind == Operation::Kind::AwaitIdentity) identities_.await(*accepted);
  }
  taken_.submitted.clear();
  for (const OperationPtr &operation : taken_.cancelled) operations_.drop_cancelled(operation);
  taken_.cancelled.clear();
}

void KeyClient::send_waiting(Time now) {
  if (GrpcConnection *connection = connections_.usable()) operations_.send_waiting(*connection, now);
}

// When the loop has something to do even if nothing arrives.
Time KeyClient::next_event(Time now) {
  Time next = std::min({now + std::chrono::seconds(60), connections_.next_event(), operations_.next_due()});
  if (connections_.established()) next = std::min(next, identities_.next_ask());
  if (now - last_exchange_ < kExchangeGap) {
    next = std::min(next, now + kExchangeGap);
  } else {
    muted_ = false;
  }
  return next;
}

void KeyClient::sleep(std::unique_lock<std::mutex> &loop, Time until) {
  connections_.await_all(muted_);
  Time now = Clock::now();
  // Rounded up: waking a moment early would only cost another turn.
  int timeout_ms =
      until <= now ? 0 : static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(until - now).count());
  {
    std::lock_guard lock(mutex_);
    if (!inbox_.empty()) timeout_ms = 0;
    sleeping_ = timeout_ms != 0;
  }
  sleeps_until_ = until;
  thread_has_work_ = false;
  connections_.take_changed();
  epoll_event events[8];
  loop.unlock();
  int count = epoll_wait(epoll_fd_, events, static_cast<int>(std::size(events)), timeout_ms);
  loop.lock();
  sleeps_until_ = {};
  {
    std::lock_guard lock(mutex_);
    sleeping_ = false;
  }
  for (int i = 0; i < count; i++) {
    if (events[i].data.ptr != nullptr) {
      connections_.ready(events[i].data.ptr);
      continue;
    }
    uint64_t times;
    [[maybe_unused]] ssize_t got = read(event_fd_, &times, sizeof times);
  }
}

}  // namespace tls_offload
