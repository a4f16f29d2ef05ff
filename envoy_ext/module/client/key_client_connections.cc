// The key client's connections: making, losing and retiring them, and asking for identities on them.
#include <algorithm>
#include <utility>

#include "envoy_ext/module/client/key_client.h"
#include "envoy_ext/module/envoy/log.h"

namespace tls_offload {
namespace {

constexpr Duration kFirstAskDelay = std::chrono::milliseconds(50);
constexpr Duration kLargestAskDelay = std::chrono::milliseconds(1000);
// A listening socket connects for a daemon that hangs; another may be listening at the path by now.
constexpr Duration kEstablishTimeout = std::chrono::milliseconds(1000);

}  // namespace

void KeyClient::connect() {
  std::string error;
  current_ = GrpcConnection::open(socket_path_, *this, error);
  useful_ = false;
  if (current_ != nullptr) {
    establish_until_ = Clock::now() + kEstablishTimeout;
    for (auto &[name, watched] : watched_) {
      watched.asked = false;
      watched.ask_again = {};
      watched.refusal.clear();
    }
    return;
  }
  // Said once per reason: a daemon that is away for an hour is one line, not ten thousand.
  if (error != last_error_) {
    log(abi::LogLevel::Warn, "cannot connect to the daemon at " + socket_path_ + ": " + error);
    announced_ = false;
  }
  last_error_ = error;
  stats_.add(Counter::ConnectionFailures);
  reconnect_.lost(Clock::now());
}

void KeyClient::connection_lost(GrpcConnection *connection, const std::string &reason) {
  thread_has_work_ = true;
  requeue(connection, reason);
  if (connection != current_.get()) {
    std::erase_if(retiring_, [&](const auto &retiring) { return retiring.get() == connection; });
    return;
  }
  if (reconnect_.state() != Reconnect::State::Connected) stats_.add(Counter::ConnectionFailures);
  // Once per reason here too: a daemon that ends every connection in the same way is one line.
  if (useful_ || reason != last_error_) {
    log(abi::LogLevel::Warn, "lost the connection to the daemon at " + socket_path_ + ": " + reason);
    announced_ = false;
  }
  last_error_ = reason;
  current_.reset();
  stats_.set_connected(false);
  reconnect_.lost(Clock::now());
}

// A connection on which nothing at all came while an operation timed out belongs to a daemon that hangs.
void KeyClient::drop_silent(Time now) {
  if (current_ == nullptr) return;
  if (!current_->established() && establish_until_ <= now) {
    connection_lost(current_.get(), "the daemon does not speak");
  } else if (current_->established() && silent_since_ > current_->last_received()) {
    connection_lost(current_.get(), "the daemon does not answer");
  }
  silent_since_ = {};
}

// A connection that takes no new operations makes room for the next, and is kept until its answers have come.
void KeyClient::retire() {
  if (current_ != nullptr && current_->retiring()) {
    last_error_ = "the daemon is draining";
    log(abi::LogLevel::Info, "the daemon at " + socket_path_ + " is draining; connecting again");
    announced_ = false;
    current_->finish_stream();
    retiring_.push_back(std::move(current_));
    stats_.set_connected(false);
    reconnect_.lost(Clock::now());
  }
  for (size_t i = retiring_.size(); i-- > 0;) {
    GrpcConnection *connection = retiring_[i].get();
    bool used = std::any_of(live_.begin(), live_.end(), [&](const auto &live) { return live.second.on == connection; });
    if (!used) retiring_.erase(retiring_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

// Its unanswered operations are sent once more on another connection; those that had that already fail.
void KeyClient::requeue(GrpcConnection *connection, const std::string &reason) {
  std::vector<uint64_t> again, failed;
  for (auto &[id, live] : live_) {
    if (live.on != connection) continue;
    live.on = nullptr;
    (live.retried ? failed : again).push_back(id);
  }
  // Oldest first, before what has not been sent yet.
  std::sort(again.begin(), again.end());
  Time now = Clock::now();
  for (auto id = again.rbegin(); id != again.rend(); ++id) {
    Live &live = live_.at(*id);
    live.retried = true;
    live.waits_until = now + live.operation->connect_timeout;
    waiting_.push_front(*id);
    due_.push({live.waits_until, *id});
  }
  if (!again.empty()) stats_.add(Counter::OperationsRetried, again.size());
  for (uint64_t id : failed) fail(id, Failure::Unavailable, "the connection to the daemon was lost twice: " + reason);
}

void KeyClient::on_stream_closed(GrpcConnection &connection, const std::string &reason) {
  thread_has_work_ = true;
  if (&connection == current_.get()) last_error_ = reason;
  requeue(&connection, reason);
}

void KeyClient::useful() {
  useful_ = true;
  reconnect_.useful();
}

// ---- identities ----

void KeyClient::ask_identities(Time now) {
  for (auto at = watched_.begin(); at != watched_.end();) {
    auto &[name, watched] = *at;
    if (watched.watch.expired()) {
      if (watched.asked && current_ != nullptr) current_->unwatch(name);
      at = watched_.erase(at);
      continue;
    }
    bool can_ask = current_ != nullptr && current_->established() && !current_->retiring();
    if (!watched.asked && can_ask && watched.ask_again <= now) {
      current_->watch(name);
      watched.asked = true;
    }
    ++at;
  }
}

void KeyClient::on_identity(const std::string &name, wire_view message) {
  auto found = watched_.find(name);
  if (found == watched_.end()) return;
  Watched &watched = found->second;
  auto watch = watched.watch.lock();
  if (watch == nullptr) return;
  std::string error;
  IdentityPtr identity = Identity::decode(message, error);
  if (identity == nullptr) {
    // The one in use stays in use.
    log(abi::LogLevel::Error, "identity '" + name + "' from " + socket_path_ + " is not usable: " + error);
    if (watch->current() == nullptr) watched.refusal = "identity '" + name + "' is not usable: " + error;
  } else {
    useful();
    IdentityPtr before = watch->current();
    watched.refusal.clear();
    watched.ask_delay = Duration::zero();
    watch->replace(identity);
    if (before == nullptr || before->version != identity->version) {
      stats_.add(Counter::IdentityUpdates);
      log(abi::LogLevel::Info, "identity '" + name + "' has " + std::to_string(identity->credentials.size()) +
                                   " credential(s), version " + std::to_string(identity->version));
    }
  }
  for (uint64_t id : std::exchange(watched.waiting, {})) {
    if (watched.refusal.empty()) {
      finish(id, {});
    } else {
      fail(id, Failure::Invalid, watched.refusal);
    }
  }
}

void KeyClient::on_identity_refused(GrpcConnection &connection, const std::string &name, int,
                                    const std::string &reason) {
  auto found = watched_.find(name);
  if (found == watched_.end() || &connection != current_.get()) return;
  refuse(name, found->second, reason);
}

void KeyClient::on_watch_closed(GrpcConnection &connection, const std::string &name, int status,
                                const std::string &reason) {
  auto found = watched_.find(name);
  if (found == watched_.end() || &connection != current_.get()) return;
  Watched &watched = found->second;
  thread_has_work_ = true;
  watched.asked = false;
  watched.ask_delay = watched.ask_delay == Duration::zero() ? kFirstAskDelay : watched.ask_delay * 2;
  watched.ask_delay = std::min(watched.ask_delay, kLargestAskDelay);
  watched.ask_again = Clock::now() + watched.ask_delay;
  if (status != 14) refuse(name, watched, reason);  // UNAVAILABLE: the next connection will answer
}

// Those who wait are told; whoever has the identity already keeps it.
void KeyClient::refuse(const std::string &name, Watched &watched, const std::string &reason) {
  std::string refusal = "daemon refused identity '" + name + "': " + reason;
  if (refusal != watched.refusal) {
    stats_.add(Counter::IdentitiesRefused);
    log(abi::LogLevel::Warn, refusal + " (it is used as soon as the daemon has it)");
  }
  watched.refusal = refusal;
  if (auto watch = watched.watch.lock()) watch->refuse();
  for (uint64_t id : std::exchange(watched.waiting, {})) fail(id, Failure::Refused, refusal);
}

}  // namespace tls_offload
