// Whole connections through the transport socket and the companion filter, against the real daemon: BoringSSL's client
// at one end of a socket pair, the miniature host at the other, both on one thread so that every order of events can
// occur. Some of them are dropped at a random moment.
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>
#include <unordered_map>
#include <utility>

#include "tests/native/module/check.h"
#include "tests/native/module/host.h"
#include "tests/native/module/tests.h"

namespace tests {
namespace {

using namespace tls_offload;
using host::Connection;

constexpr size_t kInFlight = 32;
constexpr int kIdleTurns = 10000;  // of at least a millisecond

std::string pattern(size_t size, unsigned seed) {
  std::minstd_rand random(seed);
  std::string data(size, 0);
  for (char &c : data) c = static_cast<char>(random() >> 8);
  return data;
}

// One client and the server's end of its connection: sends `request`, expects it back, ends properly.
class Pair {
 public:
  Pair(SSL_CTX *client_context, host::Worker &worker, uint64_t id, const TlsContext &context,
       const CompanionFilterConfig &filter, std::mt19937 &random)
      : request_(pattern(random() % 3 ? random() % 2000 : random() % 400000, static_cast<unsigned>(id))),
        steps_left_(random() % 3 == 0 ? static_cast<int>(random() % 12) : -1),
        reset_(random() % 2 == 0) {
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    fd_ = ends[0];
    server_ = std::make_unique<Connection>(worker, id, ends[1], context, filter);
    ssl_.reset(SSL_new(client_context));
    SSL_set_fd(ssl_.get(), fd_);
    SSL_set_connect_state(ssl_.get());
    if (random() % 3 == 0) SSL_set_max_proto_version(ssl_.get(), TLS1_2_VERSION);
  }
  ~Pair() {
    ssl_.reset();
    if (fd_ >= 0) ::close(fd_);
  }

  Connection &server() { return *server_; }
  int client_fd() const { return fd_; }
  bool dropped() const { return fd_ < 0; }
  bool complete() const { return echoed_ == request_; }

  std::string state() {
    return std::to_string(echoed_.size()) + " of " + std::to_string(request_.size()) + " bytes echoed, " +
           std::to_string(sent_) + " sent, " + (fd_ < 0 ? "dropped" : SSL_state_string_long(ssl_.get())) +
           (server_->connected() ? ", connected" : ", handshaking") + (server_->read_ended() ? ", read ended" : "");
  }

  // One turn of both ends; false when nothing more will happen.
  bool step() {
    if (steps_left_ > 0) steps_left_--;
    if (steps_left_ == 0 && fd_ >= 0) {
      if (reset_) server_->close(true);  // the server's own side goes first
      ::close(fd_);
      fd_ = -1;
    }
    if (fd_ >= 0) step_client();
    if (!server_->open()) return false;
    server_->readable_ = server_->writable_ = true;  // as with level-triggered events
    if (!server_->run()) return false;
    if (!server_->read_buffer_.empty()) server_->write(std::exchange(server_->read_buffer_, {}));
    if (server_->read_ended()) server_->end_stream();
    if (!server_->run()) return false;
    if (fd_ < 0 && server_->read_ended()) server_->close(false);  // both directions have ended
    return server_->open() && !(ended_ && fd_ >= 0);
  }

 private:
  void step_client() {
    ERR_clear_error();
    while (sent_ < request_.size()) {
      int size = static_cast<int>(std::min<size_t>(request_.size() - sent_, 20000));
      int put = SSL_write(ssl_.get(), request_.data() + sent_, size);
      if (put <= 0) break;
      sent_ += static_cast<size_t>(put);
    }
    if (request_.empty()) SSL_do_handshake(ssl_.get());
    if (sent_ == request_.size() && !SSL_in_init(ssl_.get()) && !shut_) {
      shut_ = SSL_shutdown(ssl_.get()) >= 0;  // otherwise the socket is full
    }
    char buffer[4096];
    for (int got; (got = SSL_read(ssl_.get(), buffer, sizeof buffer)) != -1;) {
      if (got <= 0) {
        ended_ = true;
        break;
      }
      echoed_.append(buffer, static_cast<size_t>(got));
    }
  }

  const std::string request_;
  int steps_left_;  // until it is dropped; negative: never
  const bool reset_;
  int fd_ = -1;
  std::unique_ptr<Connection> server_;
  bssl::UniquePtr<SSL> ssl_;
  size_t sent_ = 0;
  bool shut_ = false;
  bool ended_ = false;
  std::string echoed_;
};

}  // namespace

void connections(const std::string &daemon_socket, const std::string &identity, int count) {
  std::string error;
  std::optional<SocketConfig> config = parse_socket_config(
      "{\"daemon_socket\":\"" + daemon_socket + "\",\"identities\":[\"" + identity + "\"],\"handshake_wait_ms\":5000}",
      Direction::Downstream, error);
  CHECK(config.has_value());
  auto context = TlsContext::create(config.value_or(SocketConfig{}), true, error);
  CHECK(context != nullptr);
  auto filter = CompanionFilterConfig::create(nullptr, FilterSettings{daemon_socket, {}}, true, error);
  CHECK(filter != nullptr);
  bssl::UniquePtr<SSL_CTX> client_context(SSL_CTX_new(TLS_method()));
  SSL_CTX_set_mode(client_context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  host::Worker worker;
  std::mt19937 random(4);
  std::unordered_map<uint64_t, std::unique_ptr<Pair>> pairs;
  int made = 0, whole = 0, dropped = 0, idle = 0;
  while (made < count || !pairs.empty()) {
    while (made < count && pairs.size() < kInFlight) {
      uint64_t id = static_cast<uint64_t>(++made);
      pairs.emplace(id, std::make_unique<Pair>(client_context.get(), worker, id, *context, *filter, random));
    }
    pollfd waiting{worker.fd(), POLLIN, 0};
    idle = poll(&waiting, 1, 1) == 0 ? idle + 1 : 0;
    if (idle == kIdleTurns) {
      for (auto &[id, pair] : pairs) fprintf(stderr, "connection %lu hangs: %s\n", id, pair->state().c_str());
      CHECK(!"nothing hangs");
    }
    for (uint64_t id : worker.take()) {
      auto found = pairs.find(id);
      if (found != pairs.end()) found->second->server().scheduled();
    }
    for (auto at = pairs.begin(); at != pairs.end();) {
      Pair &pair = *at->second;
      if (pair.step()) {
        ++at;
        continue;
      }
      if (pair.dropped()) {
        dropped++;
      } else {
        if (!pair.complete()) fprintf(stderr, "connection %lu: %s\n", at->first, pair.server().failure().c_str());
        CHECK(pair.complete());
        CHECK(pair.server().filter_state_.empty() == !pair.server().connected());
        whole++;
      }
      at = pairs.erase(at);
    }
  }
  printf("%d connections: %d whole, %d dropped\n", made, whole, dropped);
  CHECK(whole > 0 && dropped > 0);
}

}  // namespace tests
