// One request to the daemon, shared by a connection (on its worker thread) and the key client (on its own thread).
//
// Lifecycle: the worker makes it and submits it; the client finishes it exactly once, which wakes the worker; the
// worker takes the answer. Either side may be first: after `cancel` (connection closed), `finish` only frees it.
#ifndef TLS_OFFLOAD_OPERATION_H
#define TLS_OFFLOAD_OPERATION_H

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "envoy_ext/module/client/reconnect.h"
#include "envoy_ext/module/envoy/waker.h"
#include "offload/dataplane/wire/wire.h"

namespace tls_offload {

class IdentityWatch;

using KeyId = std::array<uint8_t, WIRE_KEY_ID_SIZE>;

// What went wrong, named as the counters operations_failed_* are.
enum class Failure : uint8_t { None, Unavailable, Timeout, Refused, Overloaded, Invalid, Internal };

struct Answer {
  Failure failure = Failure::None;
  std::string reason{};           // human-readable; empty when nothing failed
  std::vector<uint8_t> output{};  // signature or premaster secret
  uint32_t backend = WIRE_BACKEND_UNSPECIFIED;
  uint32_t batch_size = 0;
  uint32_t queue_us = 0;
  uint32_t run_us = 0;
};

class Operation {
 public:
  enum class Kind : uint8_t { Sign, Decrypt, AwaitIdentity };

  // Fixed before submission, read by both sides.
  Kind kind = Kind::Sign;
  KeyId key_id{};
  uint16_t scheme = 0;
  std::vector<uint8_t> input;
  std::shared_ptr<IdentityWatch> watch;  // AwaitIdentity
  std::shared_ptr<Waker> waker;
  Time submitted;
  Duration timeout{};          // from submission until the operation fails
  Duration connect_timeout{};  // how much of that may pass without a connection to the daemon

  // Set by the client at submission, and used by the client only.
  uint64_t id = 0;

  // Client side.
  void finish(Answer &&answer) {
    {
      std::lock_guard lock(mutex_);
      if (state_ != State::Pending) return;
      answer_ = std::move(answer);
      answered_ = Clock::now();
      state_ = State::Finished;
    }
    waker->wake();
  }

  // Worker side.
  bool finished() {
    std::lock_guard lock(mutex_);
    return state_ == State::Finished;
  }
  // True when the client had not finished it, and therefore has to be told.
  bool cancel() {
    std::lock_guard lock(mutex_);
    if (state_ != State::Pending) return false;
    state_ = State::Cancelled;
    return true;
  }
  const Answer &answer() const { return answer_; }  // after finished()
  Duration elapsed() const { return answered_ - submitted; }

 private:
  enum class State : uint8_t { Pending, Finished, Cancelled };
  std::mutex mutex_;
  State state_ = State::Pending;
  Answer answer_;
  Time answered_;
};

using OperationPtr = std::shared_ptr<Operation>;

}  // namespace tls_offload

#endif
