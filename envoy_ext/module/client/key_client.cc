#include "envoy_ext/module/client/key_client.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "envoy_ext/module/envoy/escaped.h"
#include "envoy_ext/module/envoy/log.h"

namespace tls_offload {
namespace {

using std::chrono::milliseconds;

constexpr size_t kLiveMax = 65536;  // operations held; Envoy's connection limits come first

uint32_t random_bits(void *state) {
  auto &random = *static_cast<std::minstd_rand *>(state);
  return static_cast<uint32_t>(random()) << 16 ^ static_cast<uint32_t>(random());
}

long long to_ms(Duration duration) {
  return std::chrono::duration_cast<milliseconds>(duration).count();
}

Failure failure_of(uint32_t status) {
  switch (status) {
    case 3: return Failure::Invalid;
    case 4: return Failure::Timeout;
    case 5:
    case 7: return Failure::Refused;
    case 8: return Failure::Overloaded;
    case 14: return Failure::Unavailable;
    default: return Failure::Internal;
  }
}

struct Registry {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<KeyClient>> clients;
};

Registry &registry() {
  static auto *instance = new Registry;  // never destroyed: workers may outlive static destructors
  return *instance;
}

}  // namespace

std::shared_ptr<KeyClient> KeyClient::of(const std::string &socket_path) {
  Registry &all = registry();
  std::lock_guard lock(all.mutex);
  auto client = all.clients[socket_path].lock();
  if (client == nullptr) {
    client = std::make_shared<KeyClient>(socket_path);
    all.clients[socket_path] = client;
  }
  return client;
}

KeyClient::KeyClient(std::string socket_path, ReconnectPolicy policy)
    : socket_path_(std::move(socket_path)),
      event_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      epoll_fd_(epoll_create1(EPOLL_CLOEXEC)),
      random_(std::random_device{}()),
      reconnect_(policy, Clock::now(), random_bits, &random_) {
  epoll_event event{EPOLLIN, {.ptr = nullptr}};
  epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, event_fd_, &event);
  // Envoy handles signals on its main thread; ours must not take them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread_.native_handle(), "tls_offload");
}

KeyClient::~KeyClient() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake();
  thread_.join();
  ::close(epoll_fd_);
  ::close(event_fd_);
}

// ---- called by workers ----

void KeyClient::wake() {
  {
    std::lock_guard lock(mutex_);
    if (!std::exchange(sleeping_, false)) return;
  }
  uint64_t one = 1;
  // The counter cannot overflow, and an interrupted write of 8 bytes to an eventfd does not happen.
  [[maybe_unused]] ssize_t written = write(event_fd_, &one, sizeof one);
}

void KeyClient::submit(const OperationPtr &operation, bool left_for_exchange) {
  operation->submitted = Clock::now();
  {
    std::lock_guard lock(mutex_);
    operation->id = next_id_++;
    submitted_.push_back(operation);
  }
  if (!left_for_exchange) wake();
}

void KeyClient::cancel(const OperationPtr &operation) {
  if (!operation->cancel()) return;
  {
    std::lock_guard lock(mutex_);
    cancelled_.push_back(operation);
  }
  wake();
}

std::shared_ptr<IdentityWatch> KeyClient::watch(const std::string &identity) {
  std::shared_ptr<IdentityWatch> watch;
  {
    std::lock_guard lock(mutex_);
    watch = watches_[identity].lock();
    if (watch == nullptr) {
      watch = std::make_shared<IdentityWatch>(identity);
      watches_[identity] = watch;
    }
    watch->drop_refused();  // here, since the caller may hand it to a worker before the thread has its turn
    wanted_watches_.push_back(watch);
  }
  wake();
  return watch;
}

// ---- operations ----

void KeyClient::take_submitted() {
  std::vector<std::shared_ptr<IdentityWatch>> wanted;
  std::vector<OperationPtr> cancelled;
  {
    std::lock_guard lock(mutex_);
    batch_.swap(submitted_);
    cancelled.swap(cancelled_);
    wanted.swap(wanted_watches_);
    stop_ = stopping_;
  }
  for (const auto &watch : wanted) want(watch);
  for (OperationPtr &operation : batch_) accept(std::move(operation));
  batch_.clear();
  for (const OperationPtr &operation : cancelled) drop_cancelled(operation);
}

void KeyClient::want(const std::shared_ptr<IdentityWatch> &watch) {
  Watched &watched = watched_[watch->name()];
  watched.watch = watch;
  if (watched.refusal.empty()) return;
  // Where it has been asked again already, handshakes wait for that answer.
  watched.refusal.clear();
  watched.ask_again = {};
  watched.ask_delay = Duration::zero();
  // Its keys are gone: handshakes wait for the daemon's word instead of asking it for signatures with them.
  watch->replace(nullptr);
  thread_has_work_ = true;
}

void KeyClient::accept(OperationPtr operation) {
  uint64_t id = operation->id;
  if (live_.size() >= kLiveMax) {
    operation->finish({.failure = Failure::Overloaded, .reason = "too many operations wait for the daemon"});
    return;
  }
  Live live{.operation = std::move(operation)};
  live.waits_until = live.operation->submitted + std::min(live.operation->connect_timeout, live.operation->timeout);
  Time due = live.operation->kind == Operation::Kind::AwaitIdentity
                 ? live.operation->submitted + live.operation->timeout
                 : live.waits_until;
  Live &kept = live_.emplace(id, std::move(live)).first->second;
  if (kept.operation->kind == Operation::Kind::AwaitIdentity) {
    await_identity(id, kept);
  } else {
    waiting_.push_back(id);
  }
  due_.push({due, id});
}

void KeyClient::await_identity(uint64_t id, Live &live) {
  Watched &watched = watched_[live.operation->watch->name()];
  if (live.operation->watch->current() != nullptr) {
    finish(id, {});
  } else if (!watched.refusal.empty()) {
    fail(id, Failure::Refused, watched.refusal);
  } else {
    watched.waiting.push_back(id);
  }
}

void KeyClient::drop_cancelled(const OperationPtr &operation) {
  auto found = live_.find(operation->id);
  if (found == live_.end()) return;
  if (found->second.on != nullptr) found->second.on->add_cancelled(operation->id);
  live_.erase(found);
}

void KeyClient::send_waiting(Time now) {
  if (current_ == nullptr || !current_->established() || current_->retiring()) return;
  while (!waiting_.empty()) {
    auto found = live_.find(waiting_.front());
    if (found != live_.end() && found->second.on == nullptr && !send(found->first, found->second, now)) return;
    waiting_.pop_front();
  }
}

bool KeyClient::send(uint64_t id, Live &live, Time now) {
  const Operation &operation = *live.operation;
  auto left = std::chrono::duration_cast<std::chrono::microseconds>(operation.submitted + operation.timeout - now);
  if (left.count() <= 0) return true;  // expire() is about to end it
  if (operation.input.size() > WIRE_INPUT_MAX_OF_OLD && !current_->stream_answered()) return false;
  if (operation.input.size() > current_->input_max()) {
    fail(id, Failure::Invalid,
         "the handshake to be signed has " + std::to_string(operation.input.size()) + " bytes, and this daemon takes " +
             std::to_string(current_->input_max()) + "; update the daemon");
    return true;
  }
  wire_operation wire{};
  wire.id = id;
  wire.key_id = {operation.key_id.data(), operation.key_id.size()};
  wire.signature_scheme = operation.scheme;
  wire.input = {operation.input.data(), operation.input.size()};
  wire.timeout_us = static_cast<uint32_t>(std::min<long long>(left.count(), UINT32_MAX));
  wire.decrypt = operation.kind == Operation::Kind::Decrypt;
  if (!current_->add(wire)) return false;
  live.on = current_.get();
  due_.push({operation.submitted + operation.timeout, id});
  return true;
}

void KeyClient::finish(uint64_t id, Answer &&answer) {
  auto found = live_.find(id);
  if (found == live_.end()) return;
  OperationPtr operation = std::move(found->second.operation);
  live_.erase(found);
  operation->finish(std::move(answer));
}

void KeyClient::fail(uint64_t id, Failure failure, std::string reason) {
  finish(id, {.failure = failure, .reason = std::move(reason)});
}

std::string KeyClient::timeout_reason(const Live &live) const {
  const Operation &operation = *live.operation;
  if (live.on != nullptr) return "daemon gave no answer within " + std::to_string(to_ms(operation.timeout)) + " ms";
  std::string waited = std::to_string(to_ms(Clock::now() - operation.submitted)) + " ms";
  if (reconnect_.state() != Reconnect::State::Connected) {
    return "daemon unavailable: no connection to " + socket_path_ + " for " + waited + " (" + last_error_ + ")";
  }
  if (operation.kind == Operation::Kind::AwaitIdentity) {
    return "daemon sent no identity '" + operation.watch->name() + "' within " + waited;
  }
  return "daemon takes no operations: waited " + waited;
}

void KeyClient::expire(Time now) {
  while (!due_.empty() && due_.top().at <= now) {
    uint64_t id = due_.top().id;
    due_.pop();
    auto found = live_.find(id);
    if (found == live_.end()) continue;
    Live &live = found->second;
    const Operation &operation = *live.operation;
    bool waits_for_connection = live.on == nullptr && operation.kind != Operation::Kind::AwaitIdentity;
    Time ends = operation.submitted + operation.timeout;
    if (waits_for_connection) ends = std::min(ends, live.waits_until);
    if (ends > now) {
      due_.push({ends, id});
      continue;
    }
    std::string reason = timeout_reason(live);
    bool unconnected = live.on == nullptr && reconnect_.state() != Reconnect::State::Connected;
    if (live.on != nullptr) live.on->add_cancelled(id);
    if (live.on != nullptr && live.on == current_.get()) silent_since_ = std::max(silent_since_, operation.submitted);
    fail(id, unconnected ? Failure::Unavailable : Failure::Timeout, std::move(reason));
  }
}

void KeyClient::on_result(GrpcConnection &connection, const wire_result &result) {
  auto found = live_.find(result.id);
  if (found == live_.end() || found->second.on != &connection) return;  // cancelled, or not ours to answer
  if (&connection == current_.get()) useful();
  Live &live = found->second;
  if (result.status == 14 && !live.retried) {  // UNAVAILABLE: draining
    live.retried = true;
    live.on = nullptr;
    live.waits_until = Clock::now() + live.operation->connect_timeout;
    waiting_.push_back(result.id);
    due_.push({live.waits_until, result.id});
    stats_.add(Counter::OperationsRetried);
    return;
  }
  Answer answer;
  if (result.status != 0) {
    answer.failure = failure_of(result.status);
    answer.reason = std::string("daemon answered ") + grpc_status_name(static_cast<int>(result.status));
    if (result.message.size > 0) {
      constexpr size_t kMessageMax = 300;
      std::string_view message(reinterpret_cast<const char *>(result.message.data), result.message.size);
      answer.reason += ": " + escaped(message, Quotes::Escape, kMessageMax);
    }
  }
  answer.output.assign(result.output.data, result.output.data + result.output.size);
  answer.backend = result.backend;
  answer.batch_size = result.batch_size;
  answer.queue_us = result.queue_us;
  answer.run_us = result.run_us;
  finish(result.id, std::move(answer));
}

}  // namespace tls_offload
