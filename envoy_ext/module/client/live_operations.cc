#include "envoy_ext/module/client/live_operations.h"

#include <algorithm>
#include <utility>

#include "envoy_ext/module/client/identity.h"
#include "envoy_ext/module/envoy/escaped.h"
#include "offload/dataplane/wire/status.h"

namespace tls_offload {
namespace {

constexpr size_t kLiveMax = 65536;  // operations held; Envoy's connection limits come first

long long to_ms(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

Failure failure_of(uint32_t status) {
  switch (status) {
    case RPC_INVALID_ARGUMENT: return Failure::Invalid;
    case RPC_DEADLINE_EXCEEDED: return Failure::Timeout;
    case RPC_NOT_FOUND:
    case RPC_PERMISSION_DENIED: return Failure::Refused;
    case RPC_RESOURCE_EXHAUSTED: return Failure::Overloaded;
    case RPC_UNAVAILABLE: return Failure::Unavailable;
    default: return Failure::Internal;
  }
}

Answer answer_of(const wire_result &result) {
  Answer answer;
  if (result.status != RPC_OK) {
    answer.failure = failure_of(result.status);
    answer.reason = std::string("daemon answered ") + rpc_status_name(static_cast<int>(result.status));
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
  return answer;
}

}  // namespace

// ---- accepting ----

bool LiveOperations::accept(OperationPtr operation) {
  uint64_t id = operation->id;
  if (live_.size() >= kLiveMax) {
    operation->finish({.failure = Failure::Overloaded, .reason = "too many operations are waiting for the daemon"});
    return false;
  }
  Live live{.operation = std::move(operation)};
  live.waits_until = live.operation->submitted + std::min(live.operation->connect_timeout, live.operation->timeout);
  bool for_identity = live.operation->kind == Operation::Kind::AwaitIdentity;
  due_.push({for_identity ? live.operation->submitted + live.operation->timeout : live.waits_until, id});
  if (!for_identity) waiting_.push_back(id);
  live_.emplace(id, std::move(live));
  return true;
}

void LiveOperations::drop_cancelled(const OperationPtr &operation) {
  auto found = live_.find(operation->id);
  if (found == live_.end()) return;
  if (found->second.on != nullptr) found->second.on->add_cancelled(operation->id);
  live_.erase(found);
}

// ---- sending ----

void LiveOperations::send_waiting(GrpcConnection &connection, Time now) {
  while (!waiting_.empty()) {
    auto found = live_.find(waiting_.front());
    if (found != live_.end() && found->second.on == nullptr && !send(connection, found->first, found->second, now)) {
      return;
    }
    waiting_.pop_front();
  }
}

bool LiveOperations::send(GrpcConnection &connection, uint64_t id, Live &live, Time now) {
  const Operation &operation = *live.operation;
  auto left = std::chrono::duration_cast<std::chrono::microseconds>(operation.submitted + operation.timeout - now);
  if (left.count() <= 0) return true;  // expire() is about to end it
  if (operation.input.size() > WIRE_INPUT_MAX_OF_OLD && !connection.stream_answered()) return false;
  if (operation.input.size() > connection.input_max()) {
    fail(id, Failure::Invalid,
         "the handshake to be signed has " + std::to_string(operation.input.size()) +
             " bytes, but this daemon accepts " + std::to_string(connection.input_max()) + "; update the daemon");
    return true;
  }
  wire_operation wire{};
  wire.id = id;
  wire.key_id = {operation.key_id.data(), operation.key_id.size()};
  wire.signature_scheme = operation.scheme;
  wire.input = {operation.input.data(), operation.input.size()};
  wire.timeout_us = static_cast<uint32_t>(std::min<long long>(left.count(), UINT32_MAX));
  wire.decrypt = operation.kind == Operation::Kind::Decrypt;
  if (!connection.add(wire)) return false;
  live.on = &connection;
  due_.push({operation.submitted + operation.timeout, id});
  return true;
}

void LiveOperations::retry(uint64_t id, Live &live, Time now) {
  live.retried = true;
  live.waits_until = now + live.operation->connect_timeout;
  due_.push({live.waits_until, id});
}

void LiveOperations::requeue(const GrpcConnection &connection, const std::string &reason) {
  std::vector<uint64_t> again, failed;
  for (auto &[id, live] : live_) {
    if (live.on != &connection) continue;
    live.on = nullptr;
    (live.retried ? failed : again).push_back(id);
  }
  // Oldest first, ahead of operations that have not been sent yet.
  std::sort(again.begin(), again.end());
  Time now = Clock::now();
  for (auto id = again.rbegin(); id != again.rend(); ++id) {
    waiting_.push_front(*id);
    retry(*id, live_.at(*id), now);
  }
  if (!again.empty()) stats_.add(Counter::OperationsRetried, again.size());
  for (uint64_t id : failed) fail(id, Failure::Unavailable, "the connection to the daemon was lost twice: " + reason);
}

bool LiveOperations::any_on(const GrpcConnection &connection) const {
  return std::any_of(live_.begin(), live_.end(), [&](const auto &live) { return live.second.on == &connection; });
}

// ---- ending ----

bool LiveOperations::take_result(GrpcConnection &connection, const wire_result &result) {
  auto found = live_.find(result.id);
  if (found == live_.end() || found->second.on != &connection) return false;  // cancelled, or in flight elsewhere
  Live &live = found->second;
  if (result.status == RPC_UNAVAILABLE && !live.retried) {  // the daemon is draining
    live.on = nullptr;
    waiting_.push_back(result.id);
    retry(result.id, live, Clock::now());
    stats_.add(Counter::OperationsRetried);
  } else {
    finish(result.id, answer_of(result));
  }
  return true;
}

void LiveOperations::finish(uint64_t id, Answer &&answer) {
  auto found = live_.find(id);
  if (found == live_.end()) return;
  OperationPtr operation = std::move(found->second.operation);
  live_.erase(found);
  operation->finish(std::move(answer));
}

void LiveOperations::fail(uint64_t id, Failure failure, std::string reason) {
  finish(id, {.failure = failure, .reason = std::move(reason)});
}

void LiveOperations::fail_all(Failure failure, const std::string &reason) {
  while (!live_.empty()) fail(live_.begin()->first, failure, reason);
}

// ---- time ----

std::string LiveOperations::timeout_reason(const Live &live, const DaemonState &daemon) {
  const Operation &operation = *live.operation;
  if (live.on != nullptr) return "daemon did not answer within " + std::to_string(to_ms(operation.timeout)) + " ms";
  std::string waited = std::to_string(to_ms(Clock::now() - operation.submitted)) + " ms";
  if (!daemon.connected) {
    return "daemon unavailable: no connection to " + daemon.socket_path + " for " + waited + " (" + daemon.last_error +
           ")";
  }
  if (operation.kind == Operation::Kind::AwaitIdentity) {
    return "daemon sent no identity '" + operation.watch->name() + "' within " + waited;
  }
  return "daemon accepts no operations: waited " + waited;
}

Time LiveOperations::expire(Time now, const DaemonState &daemon, const GrpcConnection *connection) {
  Time unanswered{};
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
    std::string reason = timeout_reason(live, daemon);
    bool unconnected = live.on == nullptr && !daemon.connected;
    if (live.on != nullptr) live.on->add_cancelled(id);
    if (live.on != nullptr && live.on == connection) unanswered = std::max(unanswered, operation.submitted);
    fail(id, unconnected ? Failure::Unavailable : Failure::Timeout, std::move(reason));
  }
  return unanswered;
}

Time LiveOperations::next_due() {
  while (!due_.empty() && live_.count(due_.top().id) == 0) due_.pop();
  return due_.empty() ? Time::max() : due_.top().at;
}

}  // namespace tls_offload
