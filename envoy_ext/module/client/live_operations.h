// The operations that a key client holds, from when it takes them until each is finished exactly once.
//
// Belongs to the loop: whoever calls holds the key client's loop mutex.
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

// How the daemon can be reached, for those who must be told why it gave no answer.
struct DaemonState {
  const std::string &socket_path;
  bool connected;
  const std::string &last_error;
};

class LiveOperations {
 public:
  explicit LiveOperations(ClientStats &stats) : stats_(stats) {}

  // False when it was finished at once: there are too many.
  bool accept(OperationPtr operation);
  void drop_cancelled(const OperationPtr &operation);
  void send_waiting(GrpcConnection &connection, Time now);
  // False when the answer is for an operation that is not under way on this connection.
  bool take_result(GrpcConnection &connection, const wire_result &result);
  // The connection's unanswered operations are sent once more on another; those that had that already fail.
  void requeue(const GrpcConnection &connection, const std::string &reason);
  void finish(uint64_t id, Answer &&answer);
  void fail(uint64_t id, Failure failure, std::string reason);
  void fail_all(Failure failure, const std::string &reason);
  // Ends what is due. Returns when the latest of those was submitted that `connection` has not answered (it may be
  // null), or zero.
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
  std::deque<uint64_t> waiting_;  // for a connection; ids of operations that have ended are skipped
  std::priority_queue<Due> due_;
};

}  // namespace tls_offload

#endif
