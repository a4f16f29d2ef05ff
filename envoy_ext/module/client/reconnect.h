// When to connect to the daemon: a state machine without I/O. It takes events and the time, and returns the action; the
// key client's thread carries it out.
//
//   state       | event                    | next state | action
//   ------------+--------------------------+------------+-----------------------------------------
//   Waiting     | tick, time not reached   | Waiting    | none (ask wait() for the time left)
//   Waiting     | tick, time reached       | Connecting | Connect
//   Connecting  | established              | Connected  | none
//   Connected   | useful                   | Connected  | none; the next delay is the smallest again
//   Connecting, | lost                     | Waiting    | none; the delay after the next one doubles, up to the largest
//   Connected   |                          |            |
//   any other   |                          | unchanged  | none
//
// "Established" means that the daemon has spoken HTTP/2, not that connect() returned: a listening socket accepts
// connections for a daemon that is stopped. "Useful" means that it has given us an identity or the result of an
// operation. Nothing less resets the delays: a daemon that speaks and then refuses us, or sends something that ends the
// connection, must not be retried in a tight loop. Delays are drawn uniformly from [delay / 2, delay], so that the
// sidecars of a node do not reconnect all at once.
#ifndef TLS_OFFLOAD_RECONNECT_H
#define TLS_OFFLOAD_RECONNECT_H

#include <chrono>
#include <cstdint>

namespace tls_offload {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;
using Duration = Clock::duration;

struct ReconnectPolicy {
  // A Unix socket refuses at once when nobody listens, so trying often is cheap; the largest delay is how long a
  // restarted daemon may be without its clients, and handshakes must work again within a second.
  Duration smallest = std::chrono::milliseconds(10);
  Duration largest = std::chrono::milliseconds(250);
};

class Reconnect {
 public:
  enum class State { Waiting, Connecting, Connected };
  enum class Action { None, Connect };

  // `random` returns 32 uniformly distributed bits. The first attempt is made at once.
  using Random = uint32_t (*)(void *);
  Reconnect(ReconnectPolicy policy, Time now, Random random, void *random_state);

  Action tick(Time now);
  void established();
  void useful();
  void lost(Time now);

  State state() const { return state_; }
  Time next_attempt() const { return next_attempt_; }  // meaningful while Waiting
  uint64_t attempts() const { return attempts_; }

 private:
  Duration jittered(Duration delay);

  ReconnectPolicy policy_;
  Random random_;
  void *random_state_;
  State state_ = State::Waiting;
  Duration delay_;
  Time next_attempt_;
  uint64_t attempts_ = 0;
};

}  // namespace tls_offload

#endif
