#include "benchmarks/native/tlsload/connection.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "benchmarks/native/tlsload/tls_context.h"

namespace load {
namespace {

constexpr size_t kHeaderMax = 16 * 1024;

const char *phase_name(Connection::Phase phase) {
  switch (phase) {
    case Connection::Phase::kConnect: return "connect";
    case Connection::Phase::kHandshake: return "handshake";
    case Connection::Phase::kTicket: return "session ticket";
    case Connection::Phase::kRequest: return "request";
    case Connection::Phase::kResponse: return "response";
    default: return "close";
  }
}

int64_t content_length(const std::string &header) {
  for (size_t line = header.find("\r\n"); line != std::string::npos; line = header.find("\r\n", line + 2)) {
    const char *text = header.c_str() + line + 2;
    if (strncasecmp(text, "content-length:", 15) == 0) return strtoll(text + 15, nullptr, 10);
  }
  return -1;
}

}  // namespace

Connection::Connection(Shared &shared, size_t target_index, Nanoseconds due_at, Nanoseconds started_at)
    : target(target_index),
      due(due_at),
      started(started_at),
      priming(shared.options.resume && !shared.sessions[target_index]),
      shared_(shared) {}

Connection::~Connection() {
  if (fd_ >= 0) close(fd_);
}

void Connection::open() {
  const Target &to = shared_.options.targets[target];
  fd_ = socket(to.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return fail(strerror(errno));
  int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(fd_, reinterpret_cast<const sockaddr *>(&to.address), to.address_size) < 0 && errno != EINPROGRESS)
    return fail(strerror(errno));
}

void Connection::advance() {
  ERR_clear_error();
  switch (phase_) {
    case Phase::kConnect: return connected();
    case Phase::kHandshake: return handshake();
    case Phase::kRequest: return write_request();
    case Phase::kResponse: return read_response();
    case Phase::kTicket:
    case Phase::kClosing: return read_to_end();
    case Phase::kLinger:
    case Phase::kSucceeded:
    case Phase::kFailed: return;
  }
}

void Connection::connected() {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error) return fail(strerror(error));
  sockaddr_storage peer;
  socklen_t peer_size = sizeof peer;
  if (getpeername(fd_, reinterpret_cast<sockaddr *>(&peer), &peer_size) < 0) return;  // not yet connected
  if (shared_.options.plaintext) {
    phase_ = Phase::kRequest;
    return write_request();
  }
  ssl_ = make_connection(shared_.context.get(), shared_.options, fd_);
  SSL_set_app_data(ssl_.get(), this);
  if (shared_.options.resume && !priming) SSL_set_session(ssl_.get(), shared_.sessions[target].get());
  phase_ = Phase::kHandshake;
  handshake();
}

void Connection::handshake() {
  int returned = SSL_do_handshake(ssl_.get());
  if (returned != 1) return fail_from_tls(returned);
  handshake_done = now();
  resumed = SSL_session_reused(ssl_.get());
  after_handshake();
}

void Connection::after_handshake() {
  if (shared_.options.abort) {
    phase_ = Phase::kLinger;
  } else if (shared_.options.resume && !priming && !resumed) {
    fail("session not resumed");
  } else if (priming || !shared_.options.get.empty()) {
    phase_ = Phase::kRequest;
    write_request();
  } else {
    begin_close();
  }
}

void Connection::write_request() {
  const std::string &host = shared_.options.sni.empty() ? shared_.options.targets[target].name : shared_.options.sni;
  const std::string path = shared_.options.get.empty() ? "/" : shared_.options.get;
  std::string request = "GET " + path + " HTTP/1.1\r\nhost: " + host + "\r\nconnection: close\r\n\r\n";
  int returned = transmit(request);
  if (returned <= 0) return fail_from_tls(returned);  // WANT_WRITE is not a failure: the same bytes are sent again
  phase_ = priming ? Phase::kTicket : Phase::kResponse;
  priming ? read_to_end() : read_response();
}

void Connection::take_response(const char *data, size_t size) {
  if (header_complete_) {
    body_seen_ += int64_t(size);
    return;
  }
  header_.append(data, size);
  size_t end = header_.find("\r\n\r\n");
  if (end == std::string::npos) {
    if (header_.size() > kHeaderMax) fail("header larger than 16 KiB");
    return;
  }
  header_complete_ = true;
  body_seen_ = int64_t(header_.size() - end - 4);
  header_.resize(end + 2);
  body_expected_ = content_length(header_);
  if (header_.rfind("HTTP/1.", 0) != 0 || header_.size() < 12)
    fail("not HTTP/1.1");
  else if (header_.compare(9, 3, "200") != 0)
    fail("HTTP status " + header_.substr(9, 3));
}

bool Connection::response_complete() const {
  return header_complete_ && body_expected_ >= 0 && body_seen_ >= body_expected_;
}

void Connection::read_response() {
  char data[16 * 1024];
  while (phase_ == Phase::kResponse) {
    int returned = receive(data, sizeof data);
    if (returned > 0) {
      take_response(data, size_t(returned));
      if (phase_ != Phase::kResponse || !response_complete()) continue;
      return responded();
    }
    if (error_of(returned) != SSL_ERROR_ZERO_RETURN) return fail_from_tls(returned);
    if (!header_complete_ || body_expected_ >= 0) return fail("closed by the server");
    return responded();
  }
}

// In plaintext mode the proxy does the handshake, between request and response.
void Connection::responded() {
  response_done = now();
  if (shared_.options.plaintext) handshake_done = response_done;
  begin_close();
}

// Calls SSL_write or send, and returns its result.
int Connection::transmit(const std::string &text) {
  if (ssl_) return SSL_write(ssl_.get(), text.data(), int(text.size()));
  return int(send(fd_, text.data(), text.size(), MSG_NOSIGNAL));  // far smaller than an empty socket buffer
}

int Connection::receive(char *data, size_t size) {
  return ssl_ ? SSL_read(ssl_.get(), data, int(size)) : int(recv(fd_, data, size, 0));
}

// Maps a result of 0 or less to BoringSSL's error.
int Connection::error_of(int returned) const {
  if (ssl_) return SSL_get_error(ssl_.get(), returned);
  if (returned == 0) return SSL_ERROR_ZERO_RETURN;
  return errno == EAGAIN ? SSL_ERROR_WANT_READ : SSL_ERROR_SYSCALL;
}

void Connection::begin_close() {
  phase_ = Phase::kClosing;
  if (ssl_) SSL_shutdown(ssl_.get());  // sends close_notify; the server's answer is read below
  ERR_clear_error();
  // Envoy waits a second for the peer to end a connection that it is closing, and then only recognises the end of TCP.
  shutdown(fd_, SHUT_WR);
  read_to_end();
}

// Waits until the server closes. In TLS 1.3 this is also where a rejection of the client's certificate shows, and where
// session tickets arrive.
void Connection::read_to_end() {
  char data[4096];
  while (true) {
    int returned = receive(data, sizeof data);
    if (phase_ == Phase::kTicket && shared_.sessions[target]) return begin_close();
    if (returned > 0) continue;
    switch (error_of(returned)) {
      case SSL_ERROR_WANT_READ: return;
      case SSL_ERROR_SSL: return fail_from_tls(returned);
      default:  // close_notify, end of file or reset: the connection is closed, as intended
        if (phase_ == Phase::kTicket) return fail("the server gave none");
        return succeed();
    }
  }
}

void Connection::time_out() {
  if (phase_ == Phase::kClosing) {
    left_open = true;
    return succeed();
  }
  fail("timed out");
}

void Connection::drop(bool reset) {
  linger abrupt{.l_onoff = 1, .l_linger = 0};
  if (reset) setsockopt(fd_, SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt);
  close(fd_);
  fd_ = -1;
  succeed();
}

void Connection::keep(SSL_SESSION *session) {
  shared_.sessions[target].reset(session);
}

void Connection::fail(const std::string &why) {
  reason_ = std::string(phase_name(phase_)) + ": " + why;
  phase_ = Phase::kFailed;
}

void Connection::fail_from_tls(int returned) {
  int saved = errno;
  switch (error_of(returned)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return;
    case SSL_ERROR_SSL: return fail(take_tls_error());
    case SSL_ERROR_ZERO_RETURN: return fail("closed by the server");
    default: return fail(returned < 0 && saved ? strerror(saved) : "closed by the server");
  }
}

void keep_sessions(SSL_CTX *context) {
  SSL_CTX_sess_set_new_cb(context, [](SSL *ssl, SSL_SESSION *session) -> int {
    static_cast<Connection *>(SSL_get_app_data(ssl))->keep(session);
    return 1;  // the reference is ours now
  });
}

}  // namespace load
