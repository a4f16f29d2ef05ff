#include "envoy_ext/module/client/connections.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "envoy_ext/module/envoy/log.h"

namespace tls_offload {
namespace {

// connect() succeeds even when the daemon behind a listening socket hangs; another daemon may be listening at the path
// by now.
constexpr Duration kEstablishTimeout = std::chrono::milliseconds(1000);

uint32_t random_bits(void *state) {
  auto &random = *static_cast<std::minstd_rand *>(state);
  return static_cast<uint32_t>(random()) << 16 ^ static_cast<uint32_t>(random());
}

}  // namespace

Connections::Connections(const std::string &socket_path, ReconnectPolicy policy, int epoll,
                         GrpcConnection::Receiver &receiver, LiveOperations &operations, WatchedIdentities &identities,
                         ClientStats &stats)
    : socket_path_(socket_path),
      epoll_(epoll),
      receiver_(receiver),
      operations_(operations),
      identities_(identities),
      stats_(stats),
      random_(std::random_device{}()),
      reconnect_(policy, Clock::now(), random_bits, &random_) {}

GrpcConnection *Connections::usable() const {
  return established() && !current_->retiring() ? current_.get() : nullptr;
}

DaemonState Connections::state() const {
  return {socket_path_, reconnect_.state() == Reconnect::State::Connected, last_error_};
}

// ---- connecting ----

void Connections::connect_when_due(Time now) {
  if (reconnect_.tick(now) == Reconnect::Action::Connect) connect();
}

void Connections::connect() {
  std::string error;
  current_ = GrpcConnection::open(socket_path_, receiver_, error);
  useful_ = false;
  if (current_ != nullptr) {
    establish_until_ = Clock::now() + kEstablishTimeout;
    identities_.connected();
    return;
  }
  // Logged once per reason: a daemon that is down for an hour is one line, not ten thousand.
  if (error != last_error_) {
    log(abi::LogLevel::Warn, "cannot connect to the daemon at " + socket_path_ + ": " + error);
    announced_ = false;
  }
  last_error_ = error;
  stats_.add(Counter::ConnectionFailures);
  reconnect_.lost(Clock::now());
}

void Connections::note_useful() {
  useful_ = true;
  reconnect_.useful();
}

Time Connections::next_event() const {
  Time next = Time::max();
  if (reconnect_.state() == Reconnect::State::Waiting) next = reconnect_.next_attempt();
  if (current_ != nullptr && !current_->established()) next = std::min(next, establish_until_);
  return next;
}

// ---- traffic ----

void Connections::flush_current() {
  if (current_ != nullptr && !current_->flush()) lost(*current_, current_->error());
}

void Connections::flush_all() {
  flush_current();
  for (size_t i = retiring_.size(); i-- > 0;) {
    if (!retiring_[i]->flush()) lost(*retiring_[i], retiring_[i]->error());
  }
}

void Connections::ready(const void *connection) {
  if (connection == current_.get()) return service(*current_);
  auto is_it = [&](const auto &one) { return one.get() == connection; };
  auto found = std::find_if(retiring_.begin(), retiring_.end(), is_it);
  if (found != retiring_.end()) service(**found);
}

void Connections::service(GrpcConnection &connection) {
  bool was_established = connection.established();
  bool alive = connection.receive();
  if (alive && &connection == current_.get() && connection.established() && !was_established) {
    bool again = std::exchange(was_connected_, true);
    reconnect_.established();
    stats_.add(Counter::Connections);
    if (again) stats_.add(Counter::Reconnects);
    stats_.set_connected(true);
    if (!std::exchange(announced_, true)) log(abi::LogLevel::Info, "connected to the daemon at " + socket_path_);
  }
  if (!alive) lost(connection, connection.error());
}

void Connections::await(GrpcConnection &connection, bool muted) {
  uint32_t events = &connection == current_.get() && muted ? 0u : uint32_t{EPOLLIN};
  if (connection.wants_write()) events |= EPOLLOUT;
  if (connection.awaited_events == events) return;
  bool known = connection.awaited_events.has_value();
  connection.awaited_events = events;
  epoll_event event{events, {.ptr = &connection}};
  epoll_ctl(epoll_, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, connection.fd(), &event);
}

void Connections::await_current(bool muted) {
  if (current_ != nullptr) await(*current_, muted);
}

void Connections::await_all(bool muted) {
  await_current(muted);
  for (const auto &connection : retiring_) await(*connection, muted);
}

// ---- ending ----

void Connections::lost(GrpcConnection &connection, const std::string &reason) {
  changed_ = true;
  operations_.requeue(connection, reason);
  if (&connection != current_.get()) {
    std::erase_if(retiring_, [&](const auto &retiring) { return retiring.get() == &connection; });
    return;
  }
  if (reconnect_.state() != Reconnect::State::Connected) stats_.add(Counter::ConnectionFailures);
  // Logged once per reason here too: a daemon that ends every connection in the same way is one line.
  if (useful_ || reason != last_error_) {
    log(abi::LogLevel::Warn, "lost the connection to the daemon at " + socket_path_ + ": " + reason);
    announced_ = false;
  }
  last_error_ = reason;
  current_.reset();
  stats_.set_connected(false);
  reconnect_.lost(Clock::now());
}

void Connections::note_stream_closed(const GrpcConnection &connection, const std::string &reason) {
  changed_ = true;
  if (&connection == current_.get()) last_error_ = reason;
}

void Connections::drop_silent(Time now, Time unanswered) {
  if (current_ == nullptr) return;
  if (!current_->established() && establish_until_ <= now) {
    lost(*current_, "the daemon does not complete the connection");
  } else if (current_->established() && unanswered > current_->last_received()) {
    lost(*current_, "the daemon does not answer");
  }
}

void Connections::retire() {
  if (current_ != nullptr && current_->retiring()) {
    last_error_ = "the daemon is draining";
    log(abi::LogLevel::Info, "the daemon at " + socket_path_ + " is draining; connecting again");
    announced_ = false;
    current_->finish_stream();
    retiring_.push_back(std::move(current_));
    stats_.set_connected(false);
    reconnect_.lost(Clock::now());
  }
  std::erase_if(retiring_, [&](const auto &connection) { return !operations_.any_on(*connection); });
}

}  // namespace tls_offload
