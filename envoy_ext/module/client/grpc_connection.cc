#include "envoy_ext/module/client/grpc_connection.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace tls_offload {
namespace {

constexpr size_t kOutgoingMax = 1024 * 1024;  // for a daemon that does not read: more operations wait here
constexpr int32_t kWindow = 1024 * 1024;
constexpr size_t kOperationOverhead = 128;  // an operation's fields except its input

nghttp2_nv header(const char *name, const char *value) {
  return {reinterpret_cast<uint8_t *>(const_cast<char *>(name)), reinterpret_cast<uint8_t *>(const_cast<char *>(value)),
          strlen(name), strlen(value), NGHTTP2_NV_FLAG_NO_COPY_NAME};
}

// The five bytes before each gRPC message.
void write_grpc_header(uint8_t *into, size_t size) {
  into[0] = 0;
  for (int i = 0; i < 4; i++) into[1 + i] = static_cast<uint8_t>(size >> (24 - 8 * i));
}

}  // namespace

std::unique_ptr<GrpcConnection> GrpcConnection::open(const std::string &path, Receiver &receiver, std::string &error) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  // A Unix socket connects at once or not at all; EAGAIN means that its backlog is full.
  if (fd < 0 || connect(fd, reinterpret_cast<sockaddr *>(&address), sizeof address) != 0) {
    error = errno == EAGAIN ? "its backlog is full" : strerror(errno);
    if (fd >= 0) ::close(fd);
    return nullptr;
  }
  std::unique_ptr<GrpcConnection> connection(new GrpcConnection(fd, receiver));
  if (!connection->start()) {
    error = connection->error_;
    return nullptr;
  }
  return connection;
}

GrpcConnection::GrpcConnection(int fd, Receiver &receiver) : fd_(fd), receiver_(receiver) {
  batch_.resize(WIRE_GRPC_HEADER_SIZE);
}

GrpcConnection::~GrpcConnection() {
  if (session_ != nullptr) nghttp2_session_del(session_);
  ::close(fd_);
}

bool GrpcConnection::start() {
  nghttp2_session_callbacks *callbacks;
  if (nghttp2_session_callbacks_new(&callbacks) != 0) return false;
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks,
                                                       [](nghttp2_session *, const nghttp2_frame *frame, void *user) {
                                                         self(user).on_frame(*frame);
                                                         return 0;
                                                       });
  nghttp2_session_callbacks_set_on_header_callback(
      callbacks, [](nghttp2_session *, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                    const uint8_t *value, size_t value_size, uint8_t, void *user) {
        self(user).on_header(frame->hd.stream_id, {reinterpret_cast<const char *>(name), name_size},
                             {reinterpret_cast<const char *>(value), value_size});
        return 0;
      });
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
      callbacks, [](nghttp2_session *, uint8_t, int32_t stream, const uint8_t *data, size_t size, void *user) {
        return self(user).on_data(stream, data, size) ? 0 : static_cast<int>(NGHTTP2_ERR_CALLBACK_FAILURE);
      });
  nghttp2_session_callbacks_set_on_stream_close_callback(
      callbacks, [](nghttp2_session *, int32_t stream, uint32_t code, void *user) {
        self(user).on_close(stream, code);
        return 0;
      });
  int made = nghttp2_session_client_new(&session_, callbacks, this);
  nghttp2_session_callbacks_del(callbacks);
  nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                       {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindow}};
  if (made != 0 || nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings)) != 0 ||
      nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, 4 * kWindow) != 0) {
    error_ = "out of memory";
    return false;
  }
  stream_ = begin_call("/offload.v1.PrivateKeyService/Stream", Call{});
  if (stream_ < 0) {
    error_ = "the call Stream could not be started";
    return false;
  }
  return flush();
}

int32_t GrpcConnection::begin_call(const char *method, Call &&call) {
  nghttp2_nv headers[] = {header(":method", "POST"),
                          header(":scheme", "http"),
                          header(":path", method),
                          header(":authority", "localhost"),
                          header("content-type", "application/grpc"),
                          header("te", "trailers"),
                          header("user-agent", "tls-offload-envoy/1")};
  nghttp2_data_provider provider{};
  provider.read_callback = [](nghttp2_session *, int32_t stream, uint8_t *into, size_t room, uint32_t *flags,
                              nghttp2_data_source *,
                              void *user) { return self(user).read_outgoing(stream, into, room, flags); };
  int32_t stream = nghttp2_submit_request(session_, nullptr, headers, std::size(headers), &provider, nullptr);
  if (stream >= 0) calls_.emplace(stream, std::move(call));
  return stream;
}

ssize_t GrpcConnection::read_outgoing(int32_t stream, uint8_t *into, size_t room, uint32_t *flags) {
  auto found = calls_.find(stream);
  if (found == calls_.end()) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  Call &call = found->second;
  size_t size = std::min(room, call.outgoing.size() - call.outgoing_at);
  memcpy(into, call.outgoing.data() + call.outgoing_at, size);
  call.outgoing_at += size;
  if (call.outgoing_at == call.outgoing.size()) {
    call.outgoing.clear();
    call.outgoing_at = 0;
    if (call.outgoing_ends) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
    } else if (size == 0) {
      return NGHTTP2_ERR_DEFERRED;
    }
  }
  return static_cast<ssize_t>(size);
}

// ---- sending ----

bool GrpcConnection::add(const wire_operation &operation) {
  if (retiring_) return false;
  auto found = calls_.find(stream_);
  if (found == calls_.end()) return false;
  if (found->second.outgoing.size() - found->second.outgoing_at + batch_.size() > kOutgoingMax) return false;
  // A large operation gets a message of its own.
  size_t most = std::max<size_t>(WIRE_BATCH_MAX, operation.input.size + kOperationOverhead);
  for (int attempt = 0; attempt < 2; attempt++) {
    if (batch_operations_ < WIRE_OPERATIONS_MAX && batch_.size() < WIRE_GRPC_HEADER_SIZE + most) {
      size_t used = batch_.size();
      batch_.resize(WIRE_GRPC_HEADER_SIZE + most);
      wire_writer writer{batch_.data(), used, batch_.size()};
      bool fits = wire_append_operation(&writer, &operation);
      batch_.resize(writer.size);
      if (fits) {
        batch_operations_++;
        return true;
      }
    }
    seal_batch();
  }
  return false;  // not reached: an empty message has room for any operation
}

void GrpcConnection::add_cancelled(uint64_t id) {
  if (retiring_) return;
  size_t used = batch_.size();
  batch_.resize(used + 16);
  wire_writer writer{batch_.data(), used, batch_.size()};
  wire_append_cancelled(&writer, id);
  batch_.resize(writer.size);
  if (++batch_cancelled_ == WIRE_CANCELLED_MAX || batch_.size() > WIRE_BATCH_MAX - 16) seal_batch();
}

void GrpcConnection::seal_batch() {
  auto found = calls_.find(stream_);
  size_t size = batch_.size() - WIRE_GRPC_HEADER_SIZE;
  if (size > 0 && found != calls_.end()) {
    write_grpc_header(batch_.data(), size);
    found->second.outgoing.append(reinterpret_cast<const char *>(batch_.data()), batch_.size());
    nghttp2_session_resume_data(session_, stream_);
  }
  batch_.resize(WIRE_GRPC_HEADER_SIZE);
  batch_operations_ = batch_cancelled_ = 0;
}

void GrpcConnection::finish_stream() {
  auto found = calls_.find(stream_);
  if (found == calls_.end()) return;
  seal_batch();
  found->second.outgoing_ends = true;
  nghttp2_session_resume_data(session_, stream_);
}

void GrpcConnection::watch(const std::string &name) {
  if (!has_shared_watch_) return watch_alone(name);
  if (shared_watch_ < 0) shared_watch_ = begin_call("/offload.v1.PrivateKeyService/WatchIdentities", Call{});
  if (shared_watch_ < 0) {
    retiring_ = true;
    return;
  }
  if (shared_names_.insert(name).second) request_watch(name, false);
}

void GrpcConnection::unwatch(const std::string &name) {
  if (shared_names_.erase(name) > 0) return request_watch(name, true);
  for (auto &[stream, call] : calls_) {
    if (call.watched == name) nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
  }
}

void GrpcConnection::request_watch(const std::string &name, bool unwatch) {
  std::string &outgoing = calls_.at(shared_watch_).outgoing;
  size_t at = outgoing.size();
  outgoing.resize(at + WIRE_GRPC_HEADER_SIZE + name.size() + 16);
  auto *data = reinterpret_cast<uint8_t *>(outgoing.data()) + at;
  wire_writer writer{data, WIRE_GRPC_HEADER_SIZE, outgoing.size() - at};
  wire_watch_item item{unwatch, {reinterpret_cast<const uint8_t *>(name.data()), name.size()}};
  wire_append_watch_item(&writer, &item);
  write_grpc_header(data, writer.size - WIRE_GRPC_HEADER_SIZE);
  outgoing.resize(at + writer.size);
  nghttp2_session_resume_data(session_, shared_watch_);
}

void GrpcConnection::watch_alone(const std::string &name) {
  Call call;
  call.watched = name;
  call.outgoing.resize(WIRE_GRPC_HEADER_SIZE + name.size() + 16);
  call.outgoing_ends = true;
  auto *data = reinterpret_cast<uint8_t *>(call.outgoing.data());
  wire_writer writer{data, WIRE_GRPC_HEADER_SIZE, call.outgoing.size()};
  wire_append_watch_request(&writer, {reinterpret_cast<const uint8_t *>(name.data()), name.size()});
  write_grpc_header(data, writer.size - WIRE_GRPC_HEADER_SIZE);
  call.outgoing.resize(writer.size);
  if (begin_call("/offload.v1.PrivateKeyService/WatchIdentity", std::move(call)) < 0) retiring_ = true;
}

bool GrpcConnection::flush() {
  seal_batch();
  for (;;) {
    while (unsent_.size() < 64 * 1024) {
      const uint8_t *data;
      ssize_t size = nghttp2_session_mem_send(session_, &data);
      if (size < 0) return fail(nghttp2_strerror(static_cast<int>(size))), false;
      if (size == 0) break;
      unsent_.append(reinterpret_cast<const char *>(data), static_cast<size_t>(size));
    }
    if (unsent_.empty()) break;
    ssize_t sent = send(fd_, unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN || errno == EINTR) return true;
      int error = errno;
      receive();  // a daemon that refuses us has sent the reason before it closed
      return lost(error);
    }
    unsent_.erase(0, static_cast<size_t>(sent));
  }
  if (!nghttp2_session_want_read(session_) && !nghttp2_session_want_write(session_)) {
    return fail("the daemon ended the session"), false;
  }
  return true;
}

// That the daemon is gone shows when reading or writing, and with different errors: one reason covers them all.
bool GrpcConnection::lost(int error) {
  fail(error == EPIPE || error == ECONNRESET ? "the daemon closed the connection" : strerror(error));
  return false;
}

void GrpcConnection::fail(const std::string &reason) {
  if (error_.empty()) error_ = reason;
}

}  // namespace tls_offload
