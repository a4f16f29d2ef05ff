// One connection from connect to close, as a state machine on a non-blocking socket. It has no clock and no event loop:
// times are passed in, and the worker calls advance() whenever the socket may have become ready.
#pragma once

#include <openssl/ssl.h>

#include <string>
#include <vector>

#include "benchmarks/native/tlsload/options.h"

namespace load {

// The state shared by the connections of one thread.
struct Shared {
  const Options &options;
  bssl::UniquePtr<SSL_CTX> context;
  std::vector<bssl::UniquePtr<SSL_SESSION>> sessions;  // the latest per target; null until there is one
};

class Connection {
 public:
  enum class Phase {
    kConnect,
    kHandshake,
    kTicket,  // priming: a request was sent, since a BoringSSL server sends tickets only with its first data
    kRequest,
    kResponse,
    kClosing,  // close_notify was sent, waiting for the server to close
    kLinger,   // to be aborted: handshake done, waiting for the time to drop
    kSucceeded,
    kFailed,
  };

  // `due` is when the connection should have started, `started` when it does.
  Connection(Shared &shared, size_t target, Nanoseconds due, Nanoseconds started);
  ~Connection();
  Connection(const Connection &) = delete;
  Connection &operator=(const Connection &) = delete;

  void open();
  void advance();
  void time_out();  // its timeout has passed, whatever it is doing
  void drop(bool reset);
  void keep(SSL_SESSION *session);  // takes the reference

  bool ended() const { return phase_ == Phase::kSucceeded || phase_ == Phase::kFailed; }
  bool failed() const { return phase_ == Phase::kFailed; }
  const std::string &reason() const { return reason_; }
  Phase phase() const { return phase_; }
  int fd() const { return fd_; }
  SSL *ssl() const { return ssl_.get(); }

  const size_t target;
  const Nanoseconds due;
  const Nanoseconds started;
  const bool priming;  // gets the first session of its target; not reported
  Nanoseconds handshake_done = 0;
  Nanoseconds response_done = 0;
  bool resumed = false;
  bool left_open = false;  // the server did not end the connection after our close_notify

 private:
  void connected();
  void handshake();
  void after_handshake();
  void write_request();
  void read_response();
  void read_to_end();
  void responded();
  void begin_close();
  int transmit(const std::string &text);
  int receive(char *data, size_t size);
  int error_of(int returned) const;
  void take_response(const char *data, size_t size);
  bool response_complete() const;
  void fail(const std::string &why);
  void fail_from_tls(int returned);
  void succeed() { phase_ = Phase::kSucceeded; }

  Shared &shared_;
  int fd_ = -1;
  bssl::UniquePtr<SSL> ssl_;
  Phase phase_ = Phase::kConnect;
  std::string reason_;
  std::string header_;  // of the response, with its blank line once that is there
  bool header_complete_ = false;
  int64_t body_expected_ = -1;  // Content-Length, -1: until the end
  int64_t body_seen_ = 0;
};

// Makes the context store each connection's session in Shared::sessions.
void keep_sessions(SSL_CTX *context);

}  // namespace load
