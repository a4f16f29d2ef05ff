// The operations that a key client holds, from when it accepts them until each is finished exactly once.
//
// Belongs to the loop: the caller holds the key client's loop mutex.
#ifndef TLS_OFFLOAD_LIVE_OPERATIONS_H
#define TLS_OFFLOAD_LIVE_OPERATIONS_H

#include <cstdint>
#include <deque>
#include <queue>
#include <string>
#include <unordered_map>

#include "envoy_ext/module/client/grpc_connection.h"
#include "envoy_ext/module/client/operation.h"
#include "envoy_ext/module/envoy/stats.h"

namespace tls_offload {

// Whether the daemon can be reached, to explain why there was no answer.
struct DaemonState {
  const std::string &socket_path;
  bool connected;
  const std::string &last_error;
};

class LiveOperations {
 public:
  explicit LiveOperations(ClientStats &stats) : stats_(stats) {}

  // False when it was finished at once because there are too many.
  bool accept(OperationPtr operation);
  void drop_cancelled(const OperationPtr &operation);
  void send_waiting(GrpcConnection &connection, Time now);
  // False when the answer is for an operation that is not in flight on this connection.
  bool take_result(GrpcConnection &connection, const wire_result &result);
  // The connection's unanswered operations are retried once on another; those already retried fail.
  void requeue(const GrpcConnection &connection, const std::string &reason);
  void finish(uint64_t id, Answer &&answer);
  void fail(uint64_t id, Failure failure, std::string reason);
  void fail_all(Failure failure, const std::string &reason);
  // Fails the operations that are due. Returns the latest submission time of those that `connection` (which may be
  // null) left unanswered, or zero.
  Time expire(Time now, const DaemonState &daemon, const GrpcConnection *connection);

  bool empty() const { return live_.empty(); }
  bool any_waits() const { return !waiting_.empty(); }
  bool any_on(const GrpcConnection &connection) const;
  Time next_due();  // the far future when there is none

 private:
  // `on` is null while it waits for a connection.
  struct Live {
    OperationPtr operation;
    GrpcConnection *on = nullptr;
    Time waits_until{};
    bool retried = false;
  };
  struct Due {
    Time at;
    uint64_t id;
    bool operator<(const Due &other) const { return at > other.at; }  // earliest on top
  };

  bool send(GrpcConnection &connection, uint64_t id, Live &live, Time now);
  void retry(uint64_t id, Live &live, Time now);
  static std::string timeout_reason(const Live &live, const DaemonState &daemon);

  ClientStats &stats_;
  std::unordered_map<uint64_t, Live> live_;
  std::deque<uint64_t> waiting_;  // ids waiting for a connection; those of ended operations are skipped
  std::priority_queue<Due> due_;
};

}  // namespace tls_offload

#endif
