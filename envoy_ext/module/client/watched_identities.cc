#include "envoy_ext/module/client/watched_identities.h"

#include <algorithm>
#include <utility>

#include "envoy_ext/module/envoy/log.h"
#include "offload/dataplane/wire/status.h"

namespace tls_offload {
namespace {

constexpr Duration kFirstAskDelay = std::chrono::milliseconds(50);
constexpr Duration kLargestAskDelay = std::chrono::milliseconds(1000);

}  // namespace

// ---- asking ----

bool WatchedIdentities::want(const std::shared_ptr<IdentityWatch> &watch) {
  Watched &watched = watched_[watch->name()];
  watched.watch = watch;
  if (watched.refusal.empty()) return false;
  // If the daemon has been asked again already, handshakes wait for that answer.
  watched.refusal.clear();
  watched.ask_again = {};
  watched.ask_delay = Duration::zero();
  // Its keys are gone: handshakes wait for the daemon's answer in place of asking it for signatures with these keys.
  watch->replace(nullptr);
  return true;
}

void WatchedIdentities::await(const Operation &operation) {
  Watched &watched = watched_[operation.watch->name()];
  if (operation.watch->current() != nullptr) {
    operations_.finish(operation.id, {});
  } else if (!watched.refusal.empty()) {
    operations_.fail(operation.id, Failure::Refused, watched.refusal);
  } else {
    watched.waiting.push_back(operation.id);
  }
}

void WatchedIdentities::connected() {
  for (auto &[name, watched] : watched_) {
    watched.asked = false;
    watched.ask_again = {};
    watched.refusal.clear();
  }
}

void WatchedIdentities::ask(GrpcConnection *connection, Time now) {
  bool can_ask = connection != nullptr && connection->established() && !connection->retiring();
  for (auto at = watched_.begin(); at != watched_.end();) {
    auto &[name, watched] = *at;
    if (watched.watch.expired()) {
      if (watched.asked && connection != nullptr) connection->unwatch(name);
      at = watched_.erase(at);
      continue;
    }
    if (!watched.asked && can_ask && watched.ask_again <= now) {
      connection->watch(name);
      watched.asked = true;
    }
    ++at;
  }
}

Time WatchedIdentities::next_ask() const {
  Time next = Time::max();
  for (const auto &[name, watched] : watched_) {
    if (!watched.asked) next = std::min(next, watched.ask_again);
  }
  return next;
}

// ---- answers of the daemon ----

bool WatchedIdentities::receive(const std::string &name, wire_view message) {
  auto found = watched_.find(name);
  if (found == watched_.end()) return false;
  Watched &watched = found->second;
  auto watch = watched.watch.lock();
  if (watch == nullptr) return false;
  std::string error;
  IdentityPtr identity = Identity::decode(message, error);
  if (identity == nullptr) {
    // The previous one stays in use.
    log(abi::LogLevel::Error, "identity '" + name + "' from " + socket_path_ + " is not usable: " + error);
    if (watch->current() == nullptr) watched.refusal = "identity '" + name + "' is not usable: " + error;
  } else {
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
      operations_.finish(id, {});
    } else {
      operations_.fail(id, Failure::Invalid, watched.refusal);
    }
  }
  return identity != nullptr;
}

void WatchedIdentities::refused(const std::string &name, const std::string &reason) {
  auto found = watched_.find(name);
  if (found != watched_.end()) refuse(name, found->second, reason);
}

bool WatchedIdentities::closed(const std::string &name, int status, const std::string &reason) {
  auto found = watched_.find(name);
  if (found == watched_.end()) return false;
  Watched &watched = found->second;
  watched.asked = false;
  watched.ask_delay = watched.ask_delay == Duration::zero() ? kFirstAskDelay : watched.ask_delay * 2;
  watched.ask_delay = std::min(watched.ask_delay, kLargestAskDelay);
  watched.ask_again = Clock::now() + watched.ask_delay;
  if (status != RPC_UNAVAILABLE) refuse(name, watched, reason);  // otherwise the next connection will bring an answer
  return true;
}

// Fails the operations that wait for it; identities already delivered stay in use.
void WatchedIdentities::refuse(const std::string &name, Watched &watched, const std::string &reason) {
  std::string refusal = "daemon refused identity '" + name + "': " + reason;
  if (refusal != watched.refusal) {
    stats_.add(Counter::IdentitiesRefused);
    log(abi::LogLevel::Warn, refusal + " (it will be used as soon as the daemon has it)");
  }
  watched.refusal = refusal;
  if (auto watch = watched.watch.lock()) watch->refuse();
  for (uint64_t id : std::exchange(watched.waiting, {})) operations_.fail(id, Failure::Refused, refusal);
}

}  // namespace tls_offload
