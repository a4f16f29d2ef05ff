// Envoy in miniature: enough of its side of the ABI to run the module's transport socket and companion filter on one
// thread, over a socket pair, under sanitizers, with which the real Envoy (with its own allocator) cannot be run.
#ifndef TLS_OFFLOAD_TESTS_HOST_H
#define TLS_OFFLOAD_TESTS_HOST_H

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "envoy_ext/module/envoy/abi.h"
#include "envoy_ext/module/hooks/companion_filter.h"
#include "envoy_ext/module/hooks/transport_socket.h"

namespace host {

using namespace tls_offload;

// One worker: a queue that other threads post to.
class Worker {
 public:
  Worker();
  ~Worker();
  void post(uint64_t connection);
  std::vector<uint64_t> take();
  int fd() const { return event_fd_; }

 private:
  std::mutex mutex_;
  std::vector<uint64_t> posted_;
  int event_fd_;
};

// A connection of the worker: Envoy's objects for the socket, the filter and the scheduler are all this one.
class Connection {
 public:
  Connection(Worker &worker, uint64_t id, int fd, const TlsContext &context,
             const CompanionFilterConfig &filter_config);
  ~Connection();

  // Does what Envoy's event loop does: calls the hooks until nothing is left to do. False when the connection is
  // closed.
  bool run();
  void scheduled();
  void raise(abi::Event event);
  void write(const std::string &data) { write_buffer_ += data, writable_ = true; }
  void end_stream() { end_stream_ = true, writable_ = true; }
  void close(bool abort_reset);

  bool open() const { return open_; }
  bool connected() const { return connected_; }
  bool read_ended() const { return read_ended_; }
  std::string failure() const { return std::string(socket_->failure_reason()); }

  // State for Envoy's side of the callbacks.
  Worker &worker_;
  const uint64_t id_;
  const int fd_;
  std::string read_buffer_;
  std::string write_buffer_;
  std::map<std::string, std::string> filter_state_;
  bool readable_ = true;
  bool writable_ = true;
  size_t read_limit_ = 64 * 1024;
  bool connected_ = false;

 private:
  std::unique_ptr<TransportSocket> socket_;
  std::unique_ptr<CompanionFilter> filter_;
  bool open_ = true;
  bool end_stream_ = false;
  bool read_ended_ = false;
};

// Messages of at least this level go to standard error; all are counted.
extern std::atomic<int> log_threshold;

}  // namespace host

#endif
