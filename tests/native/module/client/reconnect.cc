// When the key client tries to reach the daemon again.
#include "envoy_ext/module/client/reconnect.h"

#include <chrono>

#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {

using namespace tls_offload;
using std::chrono::milliseconds;

void reconnect_states() {
  uint32_t bits = UINT32_MAX;  // the longest delay
  auto random = [](void *state) { return *static_cast<uint32_t *>(state); };
  Time now{};
  Reconnect reconnect({milliseconds(10), milliseconds(250)}, now, random, &bits);
  CHECK(reconnect.state() == Reconnect::State::Waiting);
  CHECK(reconnect.tick(now) == Reconnect::Action::Connect);
  CHECK(reconnect.tick(now) == Reconnect::Action::None);  // one attempt at a time
  int expected[] = {10, 20, 40, 80, 160, 250, 250};
  for (int delay : expected) {
    reconnect.lost(now);
    reconnect.lost(now);  // reported twice, counted once
    CHECK(reconnect.next_attempt() - now == milliseconds(delay));
    CHECK(reconnect.tick(now + milliseconds(delay) - Duration(1)) == Reconnect::Action::None);
    now += milliseconds(delay);
    CHECK(reconnect.tick(now) == Reconnect::Action::Connect);
  }
  reconnect.established();
  CHECK(reconnect.state() == Reconnect::State::Connected);
  CHECK(reconnect.tick(now + milliseconds(1000)) == Reconnect::Action::None);
  reconnect.lost(now);
  CHECK(reconnect.next_attempt() - now == milliseconds(250));  // the connection delivered nothing
  reconnect.useful();                                          // for a connection that has ended
  now += milliseconds(250);
  CHECK(reconnect.tick(now) == Reconnect::Action::Connect);
  reconnect.useful();  // ignored: it is not established yet
  reconnect.lost(now);
  CHECK(reconnect.next_attempt() - now == milliseconds(250));
  now += milliseconds(250);
  CHECK(reconnect.tick(now) == Reconnect::Action::Connect);
  reconnect.established();
  reconnect.useful();
  reconnect.lost(now);
  CHECK(reconnect.next_attempt() - now == milliseconds(10));  // the smallest again
  bits = 0;
  CHECK(reconnect.tick(now + milliseconds(10)) == Reconnect::Action::Connect);
  reconnect.lost(now);
  CHECK(reconnect.next_attempt() - now == milliseconds(10));  // half of 20: the earliest
  reconnect.established();                                    // for an attempt that has ended
  CHECK(reconnect.state() == Reconnect::State::Waiting);
}

}  // namespace tests
