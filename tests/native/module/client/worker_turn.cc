// Tests that workers exchange requests and answers with the daemon by themselves, and that the key client's thread
// takes over.
#include "envoy_ext/module/client/worker_turn.h"

#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "envoy_ext/module/client/key_client.h"
#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {
namespace {

using namespace tls_offload;
using std::chrono::milliseconds;

class CountingWaker final : public Waker {
 public:
  std::atomic<int> woken{0};

 private:
  void wake_armed() override { woken++; }
};

// A connection that Envoy would call back.
class Connection final : public WorkerTurn::Member {
 public:
  explicit Connection(KeyClient &client) : client_(client) {}
  bool still_waits() const override { return waits; }
  void call_back() override { calls++; }
  KeyClient &key_client() const override { return client_; }

  bool waits = true;
  int calls = 0;

 private:
  KeyClient &client_;
};

void wait_for(const std::function<bool()> &condition) {
  for (int i = 0; i < 4000 && !condition(); i++) std::this_thread::sleep_for(milliseconds(5));
  CHECK(condition());
}

// The key of the operation does not exist: that yields an answer, too.
OperationPtr submitted(KeyClient &client, const std::shared_ptr<Waker> &waker, bool left_for_exchange) {
  auto operation = std::make_shared<Operation>();
  operation->scheme = 0x0403;
  operation->input.assign(130, 0x20);
  operation->timeout = operation->connect_timeout = milliseconds(20000);
  operation->waker = waker;
  client.submit(operation, left_for_exchange);
  return operation;
}

}  // namespace

void worker_turns() {
  KeyClient client("/nonexistent/offload.sock");
  Connection a(client), b(client), c(client);
  WorkerTurn turn;
  turn.join(a);
  turn.join(b);
  turn.join(a);
  CHECK(a.calls == 1 && b.calls == 0);  // one is enough
  turn.event(a);
  turn.event(b);
  CHECK(!turn.called(b));  // it was not called back: Envoy may call it for other reasons
  CHECK(turn.called(a) && a.calls + b.calls == 2);
  Connection &next = a.calls == 2 ? a : b;
  turn.event(next);
  CHECK(!turn.called(next) && a.calls + b.calls == 2);  // nothing else happened: the thread takes over
  turn.join(c);
  CHECK(c.calls == 1);
  turn.leave(c);
  CHECK(a.calls + b.calls == 3);  // another one is called in its place
  a.waits = b.waits = false;
  turn.leave(a);
  turn.leave(b);
  turn.leave(b);
  CHECK(a.calls + b.calls == 3 && c.calls == 1);
}

void exchanges(const std::string &daemon_socket) {
  KeyClient client(daemon_socket);
  auto waker = std::make_shared<CountingWaker>();
  std::vector<OperationPtr> all;
  auto finished = [&] {
    for (auto &operation : all) {
      if (!operation->finished()) return false;
    }
    return true;
  };
  all.push_back(submitted(client, waker, false));
  wait_for(finished);
  // On this thread alone; the key client's thread is told that it need not look.
  for (int i = 0; i < 100; i++) {
    all.push_back(submitted(client, waker, true));
    wait_for([&] {
      client.exchange(true);
      return finished();
    });
  }
  // Another exchange is announced but never made: the thread looks after a while.
  for (int i = 0; i < 20; i++) {
    for (int n = 0; n < 3; n++) {
      all.push_back(submitted(client, waker, true));
      client.exchange(true);
    }
    wait_for(finished);
  }
  // Concurrent workers, one of which hands over to the thread each time.
  std::vector<std::vector<OperationPtr>> of_workers(3);
  std::vector<std::thread> workers;
  for (auto &mine : of_workers) {
    workers.emplace_back([&, again = &mine != &of_workers[0]] {
      for (int i = 0; i < 100; i++) {
        mine.push_back(submitted(client, waker, true));
        client.exchange(again);
        wait_for([&] {
          if (again) client.exchange(true);
          return mine.back()->finished();
        });
      }
    });
  }
  for (auto &worker : workers) worker.join();
  for (auto &mine : of_workers) all.insert(all.end(), mine.begin(), mine.end());
  CHECK(finished() && waker->woken == static_cast<int>(all.size()));
  for (auto &operation : all) CHECK(operation->answer().failure == Failure::Refused);
  printf("%zu operations\n", all.size());
}

}  // namespace tests
