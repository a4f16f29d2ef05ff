// A key client's connections to its daemon: the one for new requests, and retired ones that are kept until their
// answers have come. They are opened, lost and retired here; reconnect.h decides when to connect.
//
// Belongs to the loop: the caller holds the key client's loop mutex.
#ifndef TLS_OFFLOAD_CONNECTIONS_H
#define TLS_OFFLOAD_CONNECTIONS_H

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "envoy_ext/module/client/grpc_connection.h"
#include "envoy_ext/module/client/live_operations.h"
#include "envoy_ext/module/client/reconnect.h"
#include "envoy_ext/module/client/watched_identities.h"
#include "envoy_ext/module/envoy/stats.h"

namespace tls_offload {

class Connections {
 public:
  // `epoll` reports readable and writable connections, with the connection as event data.
  Connections(const std::string &socket_path, ReconnectPolicy policy, int epoll, GrpcConnection::Receiver &receiver,
              LiveOperations &operations, WatchedIdentities &identities, ClientStats &stats);

  // Null when there is none. It may not have been established yet, or may be about to retire.
  GrpcConnection *current() const { return current_.get(); }
  // Null when no connection takes new operations.
  GrpcConnection *usable() const;
  bool established() const { return current_ != nullptr && current_->established(); }
  DaemonState state() const;

  void connect_when_due(Time now);
  void flush_current();
  void flush_all();
  // Receives what has arrived, and passes it to the key client's Receiver.
  void service_current() { service(*current_); }
  void ready(const void *connection);  // reported by epoll; ignored if it was dropped meanwhile
  // A connection that takes no new operations makes room for the next, and is kept until its answers have come.
  void retire();
  // Drops connections of a hanging daemon: those on which nothing has arrived since operations were submitted that
  // timed out.
  void drop_silent(Time now, Time unanswered);
  Time next_event() const;  // the far future when there is none

  // Sets the events that epoll reports. Answers on the current connection do not wake the thread while it is `muted`.
  void await_current(bool muted);
  void await_all(bool muted);

  // The current connection has delivered something.
  void note_useful();
  void note_stream_closed(const GrpcConnection &connection, const std::string &reason);

  // Whether something that the thread has to handle happened since the last call.
  bool take_changed() { return std::exchange(changed_, false); }

 private:
  void connect();
  void service(GrpcConnection &connection);
  void lost(GrpcConnection &connection, const std::string &reason);
  void await(GrpcConnection &connection, bool muted);

  const std::string &socket_path_;
  const int epoll_;
  GrpcConnection::Receiver &receiver_;
  LiveOperations &operations_;
  WatchedIdentities &identities_;
  ClientStats &stats_;

  std::minstd_rand random_;
  Reconnect reconnect_;
  bool was_connected_ = false;
  bool useful_ = false;     // the current connection has delivered something
  bool announced_ = false;  // the log says that we are connected
  bool changed_ = false;
  std::string last_error_ = "not attempted yet";
  std::unique_ptr<GrpcConnection> current_;
  Time establish_until_{};
  std::vector<std::unique_ptr<GrpcConnection>> retiring_;
};

}  // namespace tls_offload

#endif
