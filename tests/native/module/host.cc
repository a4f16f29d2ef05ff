#include "tests/native/module/host.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace host {

std::atomic<int> log_threshold{static_cast<int>(abi::LogLevel::Error)};

Worker::Worker() : event_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
Worker::~Worker() {
  ::close(event_fd_);
}

void Worker::post(uint64_t connection) {
  std::lock_guard lock(mutex_);
  posted_.push_back(connection);
  eventfd_write(event_fd_, 1);
}

std::vector<uint64_t> Worker::take() {
  std::lock_guard lock(mutex_);
  eventfd_t count;
  eventfd_read(event_fd_, &count);
  return std::exchange(posted_, {});
}

Connection::Connection(Worker &worker, uint64_t id, int fd, const TlsContext &context,
                       const CompanionFilterConfig &filter_config)
    : worker_(worker), id_(id), fd_(fd) {
  socket_ = std::make_unique<TransportSocket>(context, this);
  socket_->set_callbacks();
  filter_ = std::make_unique<CompanionFilter>(filter_config, this);
  filter_->new_connection();
  socket_->on_connected();
}

Connection::~Connection() {
  if (open_) close(false);
  filter_.reset();
  socket_.reset();
  ::close(fd_);
}

void Connection::close(bool abort_reset) {
  socket_->close(abi::Event::LocalClose, abort_reset);
  filter_->event(abi::Event::LocalClose);
  open_ = false;
}

void Connection::raise(abi::Event event) {
  connected_ = connected_ || event == abi::Event::Connected;
  filter_->event(event);
}

void Connection::scheduled() {
  if (open_) filter_->scheduled();
}

bool Connection::run() {
  while (open_ && (readable_ || writable_)) {
    abi::IoResult result{};
    if (std::exchange(writable_, false)) {
      result = socket_->do_write(end_stream_);
    } else {
      readable_ = false;
      if (read_ended_) continue;
      result = socket_->do_read();
      read_ended_ = read_ended_ || result.end_stream_read;
    }
    if (result.action == abi::Action::Close) close(false);
  }
  return open_;
}

}  // namespace host

using host::Connection;
using namespace tls_offload;

namespace {
Connection &of(void *pointer) {
  return *static_cast<Connection *>(pointer);
}
}  // namespace

extern "C" {

void envoy_dynamic_module_callback_log(abi::LogLevel level, abi::Buffer message) {
  if (static_cast<int>(level) < host::log_threshold) return;
  fprintf(stderr, "%.*s\n", static_cast<int>(message.size), message.data);
}
bool envoy_dynamic_module_callback_log_enabled(abi::LogLevel) {
  return true;
}
bool envoy_dynamic_module_callback_is_validation_mode() {
  return false;
}

abi::Io envoy_dynamic_module_callback_transport_socket_io_read(abi::Socket socket, char *into, size_t room,
                                                               size_t *got) {
  ssize_t result = recv(of(socket).fd_, into, room, MSG_DONTWAIT);
  *got = result > 0 ? static_cast<size_t>(result) : 0;
  return result >= 0 ? abi::Io::Ok : errno == EAGAIN ? abi::Io::Again : abi::Io::Error;
}
abi::Io envoy_dynamic_module_callback_transport_socket_io_write(abi::Socket socket, const char *from, size_t size,
                                                                size_t *put) {
  ssize_t result = send(of(socket).fd_, from, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  *put = result > 0 ? static_cast<size_t>(result) : 0;
  return result >= 0 ? abi::Io::Ok : errno == EAGAIN ? abi::Io::Again : abi::Io::Error;
}
int envoy_dynamic_module_callback_transport_socket_get_fd(abi::Socket socket) {
  return of(socket).fd_;
}
void envoy_dynamic_module_callback_transport_socket_read_buffer_add(abi::Socket socket, const char *data, size_t size) {
  of(socket).read_buffer_.append(data, size);
}
void envoy_dynamic_module_callback_transport_socket_write_buffer_drain(abi::Socket socket, size_t size) {
  of(socket).write_buffer_.erase(0, size);
}
// Returns odd pieces, like those of Envoy's buffers after many small writes.
void envoy_dynamic_module_callback_transport_socket_write_buffer_get_slices(abi::Socket socket, abi::Buffer *slices,
                                                                            size_t *count) {
  const std::string &buffer = of(socket).write_buffer_;
  size_t made = 0;
  for (size_t at = 0; at < buffer.size() && made < *count; made++) {
    size_t size = std::min(buffer.size() - at, size_t{1} << (made * 3 % 17));
    slices[made] = {buffer.data() + at, size};
    at += size;
  }
  *count = made;
}
size_t envoy_dynamic_module_callback_transport_socket_write_buffer_length(abi::Socket socket) {
  return of(socket).write_buffer_.size();
}
void envoy_dynamic_module_callback_transport_socket_raise_event(abi::Socket socket, abi::Event event) {
  of(socket).raise(event);
}
bool envoy_dynamic_module_callback_transport_socket_should_drain_read_buffer(abi::Socket socket) {
  return of(socket).read_buffer_.size() >= of(socket).read_limit_;
}
void envoy_dynamic_module_callback_transport_socket_set_is_readable(abi::Socket socket) {
  of(socket).readable_ = true;
}
void envoy_dynamic_module_callback_transport_socket_set_is_writable(abi::Socket socket) {
  of(socket).writable_ = true;
}
bool envoy_dynamic_module_callback_transport_socket_get_connection_id(abi::Socket socket, uint64_t *id) {
  *id = of(socket).id_;
  return true;
}

uint64_t envoy_dynamic_module_callback_network_filter_get_connection_id(abi::Filter filter) {
  return of(filter).id_;
}
// The scheduler may outlive the connection: what it posts carries the connection's number, not a pointer.
struct HostScheduler {
  host::Worker &worker;
  uint64_t connection;
};
abi::Scheduler envoy_dynamic_module_callback_network_filter_scheduler_new(abi::Filter filter) {
  return new HostScheduler{of(filter).worker_, of(filter).id_};
}
void envoy_dynamic_module_callback_network_filter_scheduler_commit(abi::Scheduler scheduler, uint64_t) {
  auto *mine = static_cast<HostScheduler *>(scheduler);
  mine->worker.post(mine->connection);
}
void envoy_dynamic_module_callback_network_filter_scheduler_delete(abi::Scheduler scheduler) {
  delete static_cast<HostScheduler *>(scheduler);
}
bool envoy_dynamic_module_callback_network_set_filter_state_bytes(abi::Filter filter, abi::Buffer key,
                                                                  abi::Buffer value) {
  of(filter).filter_state_[std::string(key.data, key.size)] = std::string(value.data, value.size);
  return true;
}

abi::MetricsResult envoy_dynamic_module_callback_network_filter_config_define_counter(abi::FilterConfig, abi::Buffer,
                                                                                      size_t *id) {
  static size_t next = 0;
  *id = next++;
  return abi::MetricsResult::Success;
}
abi::MetricsResult envoy_dynamic_module_callback_network_filter_config_define_gauge(abi::FilterConfig config,
                                                                                    abi::Buffer name, size_t *id) {
  return envoy_dynamic_module_callback_network_filter_config_define_counter(config, name, id);
}
abi::MetricsResult envoy_dynamic_module_callback_network_filter_config_define_histogram(abi::FilterConfig config,
                                                                                        abi::Buffer name, size_t *id) {
  return envoy_dynamic_module_callback_network_filter_config_define_counter(config, name, id);
}
abi::MetricsResult envoy_dynamic_module_callback_network_filter_config_increment_counter(abi::FilterConfig, size_t,
                                                                                         uint64_t) {
  return abi::MetricsResult::Success;
}
abi::MetricsResult envoy_dynamic_module_callback_network_filter_config_set_gauge(abi::FilterConfig, size_t, uint64_t) {
  return abi::MetricsResult::Success;
}
abi::MetricsResult envoy_dynamic_module_callback_network_filter_increment_counter(abi::Filter, size_t, uint64_t) {
  return abi::MetricsResult::Success;
}
abi::MetricsResult envoy_dynamic_module_callback_network_filter_record_histogram_value(abi::Filter, size_t, uint64_t) {
  return abi::MetricsResult::Success;
}
}
