// The key client without a daemon, and with servers that break the protocol.
#include "envoy_ext/module/client/key_client.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "envoy_ext/module/client/grpc_connection.h"
#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {

using namespace tls_offload;
using std::chrono::milliseconds;

namespace {

class CountingWaker final : public Waker {
 public:
  std::atomic<int> woken{0};

 private:
  void wake_armed() override { woken++; }
};

OperationPtr make_operation(std::shared_ptr<Waker> waker, int timeout_ms) {
  auto operation = std::make_shared<Operation>();
  operation->scheme = 0x0403;
  operation->input.assign(130, 0x20);
  operation->timeout = operation->connect_timeout = milliseconds(timeout_ms);
  operation->waker = std::move(waker);
  return operation;
}

void wait_for(const std::function<bool()> &condition) {
  for (int i = 0; i < 2000 && !condition(); i++) std::this_thread::sleep_for(milliseconds(5));
  CHECK(condition());
}

// A server at `path` that answers each connection with `bytes`, then closes it or not.
class RudeServer {
 public:
  RudeServer(const std::string &path, std::function<std::string()> bytes, bool closes)
      : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    unlink(path.c_str());
    CHECK(bind(fd_, reinterpret_cast<sockaddr *>(&address), sizeof address) == 0);
    CHECK(listen(fd_, 16) == 0);
    thread_ = std::thread([this, bytes = std::move(bytes), closes] {
      std::vector<int> kept;
      for (int peer; (peer = accept(fd_, nullptr, nullptr)) >= 0;) {
        std::string answer = bytes();
        [[maybe_unused]] ssize_t sent = send(peer, answer.data(), answer.size(), MSG_NOSIGNAL);
        served++;
        if (closes) {
          ::close(peer);
        } else {
          kept.push_back(peer);
        }
      }
      for (int peer : kept) ::close(peer);
    });
  }
  ~RudeServer() {
    shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }
  std::atomic<int> served{0};

 private:
  int fd_;
  std::thread thread_;
};

// Handshakes that hold the identity continue with it; a new handshake waits for the daemon's next message.
void refused_identity_is_not_handed_out() {
  IdentityWatch watch("web");
  auto identity = std::make_shared<const Identity>();
  watch.replace(identity);
  watch.drop_refused();
  CHECK(watch.current() == identity);
  watch.refuse();
  CHECK(watch.current() == identity);
  watch.drop_refused();
  CHECK(watch.current() == nullptr);
  watch.replace(identity);
  watch.drop_refused();
  CHECK(watch.current() == identity);
}

}  // namespace

void no_daemon() {
  refused_identity_is_not_handed_out();
  KeyClient client("/nonexistent/offload.sock");
  auto waker = std::make_shared<CountingWaker>();
  auto operation = make_operation(waker, 50);
  client.submit(operation);
  wait_for([&] { return operation->finished(); });
  CHECK(operation->answer().failure == Failure::Unavailable);
  CHECK(operation->answer().reason.find("/nonexistent/offload.sock") != std::string::npos);
  CHECK(waker->woken == 1);
  auto cancelled = make_operation(waker, 10000);
  client.submit(cancelled);
  client.cancel(cancelled);
  client.cancel(cancelled);
  auto left = make_operation(waker, 10000);  // still in the client when that is destroyed
  client.submit(left);
}

void rude_daemons(const std::string &folder) {
  std::string path = folder + "/rude.sock";
  const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
  std::mt19937 random(3);
  auto garbage = [&] {
    std::string bytes = random() % 2 ? settings : "";
    for (unsigned n = random() % 600; n > 0; n--) bytes += static_cast<char>(random());
    return bytes;
  };
  for (bool closes : {true, false}) {
    for (int kind = 0; kind < 3; kind++) {
      RudeServer server(
          path, [&, kind] { return kind == 0   ? std::string()
                                   : kind == 1 ? settings
                                               : garbage(); }, closes);
      KeyClient client(path, {milliseconds(1), milliseconds(5)});
      auto watch = client.watch("web");
      auto waker = std::make_shared<CountingWaker>();
      std::vector<OperationPtr> operations;
      for (int i = 0; i < 20; i++) {
        operations.push_back(make_operation(waker, 100 + i * 5));
        operations.back()->kind = i % 4 ? Operation::Kind::Sign : Operation::Kind::AwaitIdentity;
        operations.back()->watch = watch;
        client.submit(operations.back());
      }
      wait_for([&] {
        for (auto &operation : operations) {
          if (!operation->finished()) return false;
        }
        return true;
      });
      for (auto &operation : operations) CHECK(operation->answer().failure != Failure::None);
      CHECK(waker->woken == 20);
      CHECK(server.served > 0);
    }
  }
}

}  // namespace tests
