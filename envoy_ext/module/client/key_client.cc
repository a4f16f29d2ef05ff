#include "envoy_ext/module/client/key_client.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

namespace tls_offload {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<KeyClient>> clients;
};

Registry &registry() {
  static auto *instance = new Registry;  // never destroyed: workers may outlive static destructors
  return *instance;
}

}  // namespace

std::shared_ptr<KeyClient> KeyClient::of(const std::string &socket_path) {
  Registry &all = registry();
  std::lock_guard lock(all.mutex);
  auto client = all.clients[socket_path].lock();
  if (client == nullptr) {
    client = std::make_shared<KeyClient>(socket_path);
    all.clients[socket_path] = client;
  }
  return client;
}

KeyClient::KeyClient(std::string socket_path, ReconnectPolicy policy)
    : socket_path_(std::move(socket_path)),
      event_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      epoll_fd_(epoll_create1(EPOLL_CLOEXEC)),
      operations_(stats_),
      identities_(socket_path_, operations_, stats_),
      connections_(socket_path_, policy, epoll_fd_, *this, operations_, identities_, stats_) {
  epoll_event event{EPOLLIN, {.ptr = nullptr}};
  epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, event_fd_, &event);
  // Envoy handles signals on its main thread; ours must not take them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread_.native_handle(), "tls_offload");
}

KeyClient::~KeyClient() {
  {
    std::lock_guard lock(mutex_);
    inbox_.stop = true;
  }
  wake();
  thread_.join();
  ::close(epoll_fd_);
  ::close(event_fd_);
}

// ---- called by workers ----

void KeyClient::wake() {
  {
    std::lock_guard lock(mutex_);
    if (!std::exchange(sleeping_, false)) return;
  }
  uint64_t one = 1;
  // The counter cannot overflow, and an interrupted write of 8 bytes to an eventfd does not happen.
  [[maybe_unused]] ssize_t written = write(event_fd_, &one, sizeof one);
}

void KeyClient::submit(const OperationPtr &operation, bool left_for_exchange) {
  operation->submitted = Clock::now();
  {
    std::lock_guard lock(mutex_);
    operation->id = next_id_++;
    inbox_.submitted.push_back(operation);
  }
  if (!left_for_exchange) wake();
}

void KeyClient::cancel(const OperationPtr &operation) {
  if (!operation->cancel()) return;
  {
    std::lock_guard lock(mutex_);
    inbox_.cancelled.push_back(operation);
  }
  wake();
}

std::shared_ptr<IdentityWatch> KeyClient::watch(const std::string &identity) {
  std::shared_ptr<IdentityWatch> watch;
  {
    std::lock_guard lock(mutex_);
    watch = watches_[identity].lock();
    if (watch == nullptr) {
      watch = std::make_shared<IdentityWatch>(identity);
      watches_[identity] = watch;
    }
    watch->drop_refused();  // here, since the caller may hand it to a worker before the thread runs
    inbox_.wanted.push_back(watch);
  }
  wake();
  return watch;
}

// ---- callbacks of connections, on the loop ----

void KeyClient::on_result(GrpcConnection &connection, const wire_result &result) {
  bool taken = operations_.take_result(connection, result);
  if (taken && &connection == connections_.current()) connections_.note_useful();
}

void KeyClient::on_stream_closed(GrpcConnection &connection, const std::string &reason) {
  connections_.note_stream_closed(connection, reason);
  operations_.requeue(connection, reason);
}

void KeyClient::on_identity(const std::string &name, wire_view message) {
  if (identities_.receive(name, message)) connections_.note_useful();
}

void KeyClient::on_identity_refused(GrpcConnection &connection, const std::string &name, int,
                                    const std::string &reason) {
  if (&connection == connections_.current()) identities_.refused(name, reason);
}

void KeyClient::on_watch_closed(GrpcConnection &connection, const std::string &name, int status,
                                const std::string &reason) {
  if (&connection != connections_.current()) return;
  if (identities_.closed(name, status, reason)) thread_has_work_ = true;
}

}  // namespace tls_offload
