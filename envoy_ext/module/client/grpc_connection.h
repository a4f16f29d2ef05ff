// One HTTP/2 connection to the daemon: a gRPC client for the streaming calls, on nghttp2, without a thread of its
// own. The key client's thread polls the descriptor and calls in; everything that arrives goes to the Receiver.
#ifndef TLS_OFFLOAD_GRPC_CONNECTION_H
#define TLS_OFFLOAD_GRPC_CONNECTION_H

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "envoy_ext/module/client/reconnect.h"
#include "offload/dataplane/wire/wire.h"

namespace tls_offload {

class GrpcConnection {
 public:
  class Receiver {
   public:
    virtual ~Receiver() = default;
    virtual void on_result(GrpcConnection &connection, const wire_result &result) = 0;
    // The call Stream ended; its operations will not be answered. The connection cannot take new ones.
    virtual void on_stream_closed(GrpcConnection &connection, const std::string &reason) = 0;
    virtual void on_identity(const std::string &name, wire_view message) = 0;
    // The daemon has no such identity for us now; the watch continues. `status` is an rpc_status, here and below.
    virtual void on_identity_refused(GrpcConnection &connection, const std::string &name, int status,
                                     const std::string &reason) = 0;
    // The identity is no longer watched.
    virtual void on_watch_closed(GrpcConnection &connection, const std::string &name, int status,
                                 const std::string &reason) = 0;
  };

  // Null with the reason in `error` when nobody listens at `path`.
  static std::unique_ptr<GrpcConnection> open(const std::string &path, Receiver &receiver, std::string &error);
  ~GrpcConnection();
  GrpcConnection(const GrpcConnection &) = delete;
  GrpcConnection &operator=(const GrpcConnection &) = delete;

  int fd() const { return fd_; }
  bool established() const { return established_; }  // the daemon's SETTINGS have come
  bool retiring() const { return retiring_; }        // GOAWAY, or Stream ended: use another connection
  bool wants_write() const { return !unsent_.empty(); }
  std::optional<uint32_t> awaited_events;  // of the descriptor, in its owner's epoll
  Time last_received() const { return last_received_; }
  const std::string &error() const { return error_; }

  // False when the connection is lost (`error` says why).
  bool receive();
  bool flush();

  // Operations added in one turn of the loop are sent in one message at the next flush. False when there is no room
  // now.
  bool add(const wire_operation &operation);
  // How many bytes of input this daemon accepts. It announces that when it answers the call Stream, before any result.
  size_t input_max() const { return input_max_; }
  bool stream_answered() const { return stream_answered_; }
  void add_cancelled(uint64_t id);

  // All watches share one call, WatchIdentities; a daemon without that call gets a separate call for each.
  void watch(const std::string &name);
  void unwatch(const std::string &name);
  void finish_stream();  // half-close: no more operations are sent, answers still come

 private:
  // An open call: its incoming bytes, and how it ended.
  struct Call {
    std::string watched;  // only for WatchIdentity
    std::string incoming;
    size_t skip = 0;  // remaining bytes of a message that is too large
    std::string outgoing;
    size_t outgoing_at = 0;
    bool outgoing_ends = false;
    int grpc_status = -1;
    int http_status = 0;
    std::string grpc_message;
  };

  GrpcConnection(int fd, Receiver &receiver);
  bool start();
  int32_t begin_call(const char *method, Call &&call);
  void seal_batch();
  bool deliver(int32_t stream, Call &call);
  bool deliver_message(int32_t stream, Call &call, wire_view message);
  bool deliver_news(wire_view message);
  bool refuse_large(int32_t stream, Call &call, size_t size);
  void watch_alone(const std::string &name);
  void request_watch(const std::string &name, bool unwatch);
  void on_shared_watch_closed(int status, const std::string &reason);
  bool lost(int error);
  void fail(const std::string &reason);

  void on_frame(const nghttp2_frame &frame);
  void on_header(int32_t stream, std::string_view name, std::string_view value);
  bool on_data(int32_t stream, const uint8_t *data, size_t size);
  void on_close(int32_t stream, uint32_t error_code);
  ssize_t read_outgoing(int32_t stream, uint8_t *into, size_t room, uint32_t *flags);
  static GrpcConnection &self(void *user_data) { return *static_cast<GrpcConnection *>(user_data); }

  int fd_;
  Receiver &receiver_;
  nghttp2_session *session_ = nullptr;
  std::unordered_map<int32_t, Call> calls_;
  int32_t stream_ = -1;
  int32_t shared_watch_ = -1;  // the call WatchIdentities; negative: none is open
  std::set<std::string> shared_names_;
  bool has_shared_watch_ = true;  // false once the daemon has turned out not to have that call
  bool stream_answered_ = false;
  size_t input_max_ = WIRE_INPUT_MAX_OF_OLD;
  std::vector<uint8_t> batch_;  // the message of this turn, after room for the gRPC header
  size_t batch_operations_ = 0;
  size_t batch_cancelled_ = 0;
  std::string unsent_;
  bool established_ = false;
  bool retiring_ = false;
  Time last_received_ = Clock::now();
  std::string error_;
};

}  // namespace tls_offload

#endif
