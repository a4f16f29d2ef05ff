// The key client's loop: on its own thread, and in short on a worker.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "envoy_ext/module/client/key_client.h"
#include "envoy_ext/module/envoy/log.h"

namespace tls_offload {
namespace {

// A worker that said it would exchange again and did not, because it hangs, delays answers at most this long.
constexpr Duration kExchangeGap = std::chrono::milliseconds(10);

}  // namespace

// A turn of the loop in short, for what the worker waits for; the rest is left to the thread.
void KeyClient::exchange(bool again) {
  bool thread_is_needed;
  {
    std::lock_guard loop(loop_mutex_);
    Time now = Clock::now();
    bool expects_answers = !live_.empty() && current_ != nullptr && current_->established();
    take_submitted();
    send_waiting(now);
    muted_ = again && expects_answers;
    if (muted_) last_exchange_ = now;
    if (current_ != nullptr && !current_->flush()) connection_lost(current_.get(), current_->error());
    if (expects_answers && current_ != nullptr) service(current_.get());
    if (current_ != nullptr) wait_for(*current_);
    bool sleeps_too_long =
        (!due_.empty() && due_.top().at < sleeps_until_) || (muted_ && now + 2 * kExchangeGap < sleeps_until_);
    bool can_send = current_ != nullptr && current_->established() && !waiting_.empty();
    thread_is_needed = stop_ || sleeps_too_long || std::exchange(thread_has_work_, false) || can_send ||
                       (current_ != nullptr && current_->retiring());
  }
  if (thread_is_needed) wake();
}

void KeyClient::run() {
  std::unique_lock loop(loop_mutex_);
  while (!stop_) {
    Time now = Clock::now();
    if (reconnect_.tick(now) == Reconnect::Action::Connect) connect();
    ask_identities(now);
    send_waiting(now);
    if (current_ != nullptr && !current_->flush()) connection_lost(current_.get(), current_->error());
    for (size_t i = retiring_.size(); i-- > 0;) {
      if (!retiring_[i]->flush()) connection_lost(retiring_[i].get(), retiring_[i]->error());
    }
    retire();
    expire(now);
    drop_silent(now);
    sleep(loop, next_event(Clock::now()));
    take_submitted();
  }
  while (!live_.empty()) fail(live_.begin()->first, Failure::Unavailable, "the listener is going away");
}

// When there is something to do even if nothing comes.
Time KeyClient::next_event(Time now) {
  Time next = now + std::chrono::seconds(60);
  if (reconnect_.state() == Reconnect::State::Waiting) next = std::min(next, reconnect_.next_attempt());
  if (current_ != nullptr && !current_->established()) next = std::min(next, establish_until_);
  while (!due_.empty() && live_.count(due_.top().id) == 0) due_.pop();
  if (!due_.empty()) next = std::min(next, due_.top().at);
  if (current_ != nullptr && current_->established()) {
    for (const auto &[name, watched] : watched_) {
      if (!watched.asked) next = std::min(next, watched.ask_again);
    }
  }
  if (now - last_exchange_ < kExchangeGap) {
    next = std::min(next, now + kExchangeGap);
  } else {
    muted_ = false;
  }
  return next;
}

void KeyClient::wait_for(GrpcConnection &connection) {
  uint32_t events = &connection == current_.get() && muted_ ? 0u : uint32_t{EPOLLIN};
  if (connection.wants_write()) events |= EPOLLOUT;
  if (connection.awaited_events == events) return;
  bool known = connection.awaited_events.has_value();
  connection.awaited_events = events;
  epoll_event event{events, {.ptr = &connection}};
  epoll_ctl(epoll_fd_, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, connection.fd(), &event);
}

void KeyClient::sleep(std::unique_lock<std::mutex> &loop, Time until) {
  if (current_ != nullptr) wait_for(*current_);
  for (const auto &connection : retiring_) wait_for(*connection);
  Time now = Clock::now();
  // Rounded up: waking a moment early would only go round again.
  int timeout_ms =
      until <= now ? 0 : static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(until - now).count());
  {
    std::lock_guard lock(mutex_);
    if (!submitted_.empty() || !cancelled_.empty() || !wanted_watches_.empty() || stopping_) timeout_ms = 0;
    sleeping_ = timeout_ms != 0;
  }
  sleeps_until_ = until;
  thread_has_work_ = false;
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
    void *ready = events[i].data.ptr;
    if (ready == nullptr) {
      uint64_t times;
      [[maybe_unused]] ssize_t got = read(event_fd_, &times, sizeof times);
    } else if (ready == current_.get()) {
      service(current_.get());
    } else {  // one that a worker has dropped meanwhile is in no list
      auto is_it = [&](const auto &one) { return one.get() == ready; };
      auto found = std::find_if(retiring_.begin(), retiring_.end(), is_it);
      if (found != retiring_.end()) service(found->get());
    }
  }
}

void KeyClient::service(GrpcConnection *this_one) {
  bool was_established = this_one->established();
  bool alive = this_one->receive();
  if (alive && this_one == current_.get() && this_one->established() && !was_established) {
    bool again = std::exchange(was_connected_, true);
    reconnect_.established();
    stats_.add(Counter::Connections);
    if (again) stats_.add(Counter::Reconnects);
    stats_.set_connected(true);
    if (!std::exchange(announced_, true)) log(abi::LogLevel::Info, "connected to the daemon at " + socket_path_);
  }
  if (!alive) connection_lost(this_one, this_one->error());
}

}  // namespace tls_offload
