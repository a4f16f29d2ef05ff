#include "envoy_ext/module/client/reconnect.h"

#include <algorithm>

namespace tls_offload {

Reconnect::Reconnect(ReconnectPolicy policy, Time now, Random random, void *random_state)
    : policy_(policy), random_(random), random_state_(random_state), delay_(policy.smallest), next_attempt_(now) {}

Duration Reconnect::jittered(Duration delay) {
  auto half = delay.count() / 2;
  // 32 random bits over a range of at most some seconds in ns: the unevenness is far below a microsecond.
  auto part = static_cast<Duration::rep>(static_cast<double>(random_(random_state_)) / 4294967296.0 *
                                         static_cast<double>(half + 1));
  return Duration(half + part);
}

Reconnect::Action Reconnect::tick(Time now) {
  if (state_ != State::Waiting || now < next_attempt_) return Action::None;
  state_ = State::Connecting;
  attempts_++;
  return Action::Connect;
}

void Reconnect::established() {
  if (state_ != State::Connecting) return;
  state_ = State::Connected;
}

void Reconnect::useful() {
  if (state_ == State::Connected) delay_ = policy_.smallest;
}

void Reconnect::lost(Time now) {
  if (state_ == State::Waiting) return;
  next_attempt_ = now + jittered(delay_);
  delay_ = std::min(delay_ * 2, policy_.largest);
  state_ = State::Waiting;
}

}  // namespace tls_offload
