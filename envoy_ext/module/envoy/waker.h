// Wakes the worker thread that owns one connection, from any thread.
//
// Envoy's objects die on their worker while the key client's thread still holds the operation, so the pointer to wake
// is behind a mutex: `disarm` returns only when no wake is in progress, and after it `wake` does nothing.
#ifndef TLS_OFFLOAD_WAKER_H
#define TLS_OFFLOAD_WAKER_H

#include <memory>
#include <mutex>

#include "envoy_ext/module/envoy/abi.h"

namespace tls_offload {

class Waker {
 public:
  virtual ~Waker() = default;
  void wake() {
    std::lock_guard lock(mutex_);
    if (armed_) wake_armed();
  }
  void disarm() {
    std::lock_guard lock(mutex_);
    armed_ = false;
  }

 protected:
  virtual void wake_armed() = 0;

 private:
  std::mutex mutex_;
  bool armed_ = true;
};

// Downstream: through the scheduler of the companion filter, whose `scheduled` hook then runs on the worker.
class SchedulerWaker final : public Waker {
 public:
  explicit SchedulerWaker(abi::Scheduler scheduler) : scheduler_(scheduler) {}

 private:
  void wake_armed() override { envoy_dynamic_module_callback_network_filter_scheduler_commit(scheduler_, 0); }
  abi::Scheduler scheduler_;
};

}  // namespace tls_offload

#endif
