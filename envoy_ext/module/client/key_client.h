// The client of one daemon: one thread and, normally, one connection per process and daemon socket.
//
// Workers submit operations. What has come in between two turns of the loop is sent in one message, answers are matched
// by id, and each operation is finished exactly once: with the daemon's answer, or with the failure it ran into.
// Sending and receiving is the thread's work, or that of a worker that is awake anyway (worker_turn.h):
//
//   no connection      the operation waits for one, at most its connect_timeout
//   connection lost    operations in flight are sent once more on the next connection, within their timeout
//   daemon draining    GOAWAY or UNAVAILABLE: the same, while answers still come on the old connection
//   timeout            it fails, and the daemon is told that the answer is of no use
//
// A daemon that is not there is no error by itself: the thread keeps trying (reconnect.h).
#ifndef TLS_OFFLOAD_KEY_CLIENT_H
#define TLS_OFFLOAD_KEY_CLIENT_H

#include <deque>
#include <map>
#include <queue>
#include <random>
#include <thread>
#include <unordered_map>

#include "envoy_ext/module/client/grpc_connection.h"
#include "envoy_ext/module/client/identity.h"
#include "envoy_ext/module/client/operation.h"
#include "envoy_ext/module/client/reconnect.h"
#include "envoy_ext/module/envoy/stats.h"

namespace tls_offload {

class KeyClient final : private GrpcConnection::Receiver {
 public:
  // The one client of this daemon in this process; it lives as long as somebody holds it.
  static std::shared_ptr<KeyClient> of(const std::string &socket_path);
  explicit KeyClient(std::string socket_path, ReconnectPolicy policy = {});
  ~KeyClient() override;

  const std::string &socket_path() const { return socket_path_; }
  ClientStats &stats() { return stats_; }

  // Any thread. `submit` fills in the operation's id and time. An operation that is `left_for_exchange` is sent by the
  // next `exchange`, which the caller sees to (worker_turn.h).
  void submit(const OperationPtr &operation, bool left_for_exchange = false);
  void cancel(const OperationPtr &operation);
  // Sends what was submitted, and takes the answers that are there, on the calling thread. `again`: the caller will
  // call again very soon, so the thread need not wake for answers.
  void exchange(bool again);
  // The daemon is asked for the identity from now on, until nobody holds the result. Where it has refused the identity
  // to others that hold it, it is asked again at once: whoever comes now may come because the daemon has it by now.
  std::shared_ptr<IdentityWatch> watch(const std::string &identity);

 private:
  // An operation between submission and its end. `on` is null while it waits for a connection.
  struct Live {
    OperationPtr operation;
    GrpcConnection *on = nullptr;
    Time waits_until{};
    bool retried = false;
  };
  // One identity that is watched, and those who wait for the first answer about it.
  struct Watched {
    std::weak_ptr<IdentityWatch> watch;
    std::vector<uint64_t> waiting;
    std::string refusal;  // the daemon's last word, if it was a refusal
    Time ask_again{};     // when refused
    Duration ask_delay{};
    bool asked = false;  // on the present connection
  };
  struct Due {
    Time at;
    uint64_t id;
    bool operator<(const Due &other) const { return at > other.at; }  // earliest on top
  };

  void run();
  Time next_event(Time now);
  void sleep(std::unique_lock<std::mutex> &loop, Time until);
  void wait_for(GrpcConnection &connection);
  void take_submitted();
  void accept(OperationPtr operation);
  void want(const std::shared_ptr<IdentityWatch> &watch);
  void await_identity(uint64_t id, Live &live);
  void drop_cancelled(const OperationPtr &operation);

  void connect();
  void connection_lost(GrpcConnection *connection, const std::string &reason);
  void drop_silent(Time now);
  void retire();
  void service(GrpcConnection *connection);
  void ask_identities(Time now);
  void send_waiting(Time now);
  bool send(uint64_t id, Live &live, Time now);
  void requeue(GrpcConnection *connection, const std::string &reason);
  void expire(Time now);
  void finish(uint64_t id, Answer &&answer);
  void fail(uint64_t id, Failure failure, std::string reason);
  std::string timeout_reason(const Live &live) const;

  void on_result(GrpcConnection &connection, const wire_result &result) override;
  void on_stream_closed(GrpcConnection &connection, const std::string &reason) override;
  void on_identity(const std::string &name, wire_view message) override;
  void on_identity_refused(GrpcConnection &connection, const std::string &name, int status,
                           const std::string &reason) override;
  void on_watch_closed(GrpcConnection &connection, const std::string &name, int status,
                       const std::string &reason) override;
  void refuse(const std::string &name, Watched &watched, const std::string &reason);
  void useful();

  const std::string socket_path_;
  ClientStats stats_;

  // Shared with the workers.
  std::mutex mutex_;
  std::vector<OperationPtr> submitted_;
  std::vector<OperationPtr> cancelled_;
  std::vector<std::shared_ptr<IdentityWatch>> wanted_watches_;  // since the last turn of the loop
  std::map<std::string, std::weak_ptr<IdentityWatch>> watches_;
  bool sleeping_ = false;
  bool stopping_ = false;
  uint64_t next_id_ = 1;
  const int event_fd_;

  // Of the loop: the thread holds the mutex but while it sleeps, and a worker during `exchange`.
  std::mutex loop_mutex_;
  const int epoll_fd_;
  Time sleeps_until_{};
  Time last_exchange_{};          // that was to be followed by another
  bool muted_ = false;            // the thread does not wake for answers
  bool thread_has_work_ = false;  // that came up during an exchange
  std::minstd_rand random_;
  Reconnect reconnect_;
  bool was_connected_ = false;
  bool useful_ = false;     // the present connection has brought something
  bool announced_ = false;  // the log has it that we are connected
  std::string last_error_ = "not tried yet";
  std::unique_ptr<GrpcConnection> current_;
  Time establish_until_{};
  Time silent_since_{};  // when the latest operation that timed out on the present connection was submitted
  std::vector<std::unique_ptr<GrpcConnection>> retiring_;
  std::unordered_map<uint64_t, Live> live_;
  std::deque<uint64_t> waiting_;  // for a connection; ids of operations that have ended are skipped
  std::priority_queue<Due> due_;
  std::map<std::string, Watched> watched_;
  std::vector<OperationPtr> batch_;
  bool stop_ = false;

  void wake();
  std::thread thread_;  // last: starts when everything above is there
};

}  // namespace tls_offload

#endif
