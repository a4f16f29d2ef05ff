// The client of one daemon: one thread and, normally, one connection per process and daemon socket.
//
// Workers submit operations. Those submitted between two turns of the loop are sent in one message, answers are matched
// by id, and each operation is finished exactly once: with the daemon's answer, or with a failure. The thread sends and
// receives, or a worker that is awake anyway does (worker_turn.h):
//
//   no connection      the operation waits for one, at most its connect_timeout
//   connection lost    operations in flight are retried once on the next connection, within their timeout
//   daemon draining    GOAWAY or UNAVAILABLE: the same, while answers still come on the old connection
//   timeout            it fails, and is cancelled at the daemon
//
// An absent daemon is not an error by itself: the thread keeps trying (reconnect.h).
#ifndef TLS_OFFLOAD_KEY_CLIENT_H
#define TLS_OFFLOAD_KEY_CLIENT_H

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "envoy_ext/module/client/connections.h"
#include "envoy_ext/module/client/grpc_connection.h"
#include "envoy_ext/module/client/identity.h"
#include "envoy_ext/module/client/live_operations.h"
#include "envoy_ext/module/client/operation.h"
#include "envoy_ext/module/client/reconnect.h"
#include "envoy_ext/module/client/watched_identities.h"
#include "envoy_ext/module/envoy/stats.h"

namespace tls_offload {

class KeyClient final : private GrpcConnection::Receiver {
 public:
  // The one client of this daemon in this process; it lives as long as it is referenced.
  static std::shared_ptr<KeyClient> of(const std::string &socket_path);
  explicit KeyClient(std::string socket_path, ReconnectPolicy policy = {});
  ~KeyClient() override;

  const std::string &socket_path() const { return socket_path_; }
  ClientStats &stats() { return stats_; }

  // May be called by any thread. `submit` fills in the operation's id and time. An operation that is
  // `left_for_exchange` is sent by the next `exchange`, which the caller has to call (worker_turn.h).
  void submit(const OperationPtr &operation, bool left_for_exchange = false);
  void cancel(const OperationPtr &operation);
  // Sends submitted operations, and receives answers that have arrived, on the calling thread. `again`: the caller will
  // call again very soon, so the thread need not wake for answers.
  void exchange(bool again);
  // Watches the identity at the daemon for as long as the result is referenced. If the daemon has refused the identity
  // before, it is asked again at once: a new watcher may come because the daemon has the identity by now.
  std::shared_ptr<IdentityWatch> watch(const std::string &identity);

 private:
  // Requests of workers to the loop.
  struct Inbox {
    std::vector<OperationPtr> submitted;
    std::vector<OperationPtr> cancelled;
    std::vector<std::shared_ptr<IdentityWatch>> wanted;
    bool stop = false;
    bool empty() const { return submitted.empty() && cancelled.empty() && wanted.empty() && !stop; }
  };

  void wake();
  void run();
  Time next_event(Time now);
  void sleep(std::unique_lock<std::mutex> &loop, Time until);
  void take_inbox();
  void send_waiting(Time now);

  void on_result(GrpcConnection &connection, const wire_result &result) override;
  void on_stream_closed(GrpcConnection &connection, const std::string &reason) override;
  void on_identity(const std::string &name, wire_view message) override;
  void on_identity_refused(GrpcConnection &connection, const std::string &name, int status,
                           const std::string &reason) override;
  void on_watch_closed(GrpcConnection &connection, const std::string &name, int status,
                       const std::string &reason) override;

  const std::string socket_path_;
  ClientStats stats_;
  const int event_fd_;
  const int epoll_fd_;

  // Shared with the workers, guarded by `mutex_`.
  std::mutex mutex_;
  Inbox inbox_;
  std::map<std::string, std::weak_ptr<IdentityWatch>> watches_;
  bool sleeping_ = false;
  uint64_t next_id_ = 1;

  // State of the loop: the thread holds the mutex except while it sleeps, a worker during `exchange`.
  std::mutex loop_mutex_;
  LiveOperations operations_;
  WatchedIdentities identities_;
  Connections connections_;
  Inbox taken_;  // its vectors keep their capacity between turns
  Time sleeps_until_{};
  Time last_exchange_{};          // the last one that was to be followed by another
  bool muted_ = false;            // the thread does not wake for answers
  bool thread_has_work_ = false;  // work that an exchange left to it

  std::thread thread_;  // last: starts when everything above is there
};

}  // namespace tls_offload

#endif
