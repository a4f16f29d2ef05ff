#include "grpc_connection.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>

namespace tls_offload {
namespace {

constexpr size_t kIncomingMessageMax = 4 * 1024 * 1024;  // an identity with many large trust bundles
constexpr size_t kOutgoingMax = 1024 * 1024;             // a daemon that does not read: operations wait with us instead
constexpr int32_t kWindow = 1024 * 1024;

nghttp2_nv header(const char *name, const char *value) {
  return {reinterpret_cast<uint8_t *>(const_cast<char *>(name)), reinterpret_cast<uint8_t *>(const_cast<char *>(value)),
          strlen(name), strlen(value), NGHTTP2_NV_FLAG_NO_COPY_NAME};
}

std::string percent_decoded(std::string_view text) {
  auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  std::string result;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
      result += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

int parse_number(std::string_view text) {
  int value = 0;
  for (char c : text) {
    if (c < '0' || c > '9' || value > 99999) return -1;
    value = value * 10 + (c - '0');
  }
  return text.empty() ? -1 : value;
}

// The five bytes before each gRPC message.
void write_grpc_header(uint8_t *into, size_t size) {
  into[0] = 0;
  for (int i = 0; i < 4; i++) into[1 + i] = static_cast<uint8_t>(size >> (24 - 8 * i));
}

}  // namespace

const char *grpc_status_name(int status) {
  static const char *const names[] = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  return status >= 0 && status < static_cast<int>(std::size(names)) ? names[status] : "no status";
}

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
  for (int attempt = 0; attempt < 2; attempt++) {
    if (batch_operations_ < WIRE_OPERATIONS_MAX) {
      size_t used = batch_.size();
      batch_.resize(WIRE_GRPC_HEADER_SIZE + WIRE_REQUEST_MAX);
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
  return false;  // larger than a whole message; inputs are bounded before, so this does not happen
}

void GrpcConnection::add_cancelled(uint64_t id) {
  if (retiring_) return;
  size_t used = batch_.size();
  batch_.resize(used + 16);
  wire_writer writer{batch_.data(), used, batch_.size()};
  wire_append_cancelled(&writer, id);
  batch_.resize(writer.size);
  if (batch_.size() > WIRE_REQUEST_MAX - 16) seal_batch();
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
  batch_operations_ = 0;
}

void GrpcConnection::finish_stream() {
  auto found = calls_.find(stream_);
  if (found == calls_.end()) return;
  seal_batch();
  found->second.outgoing_ends = true;
  nghttp2_session_resume_data(session_, stream_);
}

void GrpcConnection::watch(const std::string &name) {
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

void GrpcConnection::unwatch(const std::string &name) {
  for (auto &[stream, call] : calls_) {
    if (stream != stream_ && call.watched == name) {
      nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
    }
  }
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
      return fail(strerror(errno)), false;
    }
    unsent_.erase(0, static_cast<size_t>(sent));
  }
  if (!nghttp2_session_want_read(session_) && !nghttp2_session_want_write(session_)) {
    return fail("the daemon ended the session"), false;
  }
  return true;
}

void GrpcConnection::fail(const std::string &reason) {
  if (error_.empty()) error_ = reason;
}

// ---- receiving ----

bool GrpcConnection::receive() {
  uint8_t buffer[32 * 1024];
  for (;;) {
    ssize_t got = recv(fd_, buffer, sizeof buffer, 0);
    if (got < 0) {
      if (errno == EAGAIN || errno == EINTR) return true;
      return fail(strerror(errno)), false;
    }
    if (got == 0) return fail("the daemon closed the connection"), false;
    last_received_ = Clock::now();
    ssize_t used = nghttp2_session_mem_recv(session_, buffer, static_cast<size_t>(got));
    if (used < 0) return fail(nghttp2_strerror(static_cast<int>(used))), false;
    if (static_cast<size_t>(got) < sizeof buffer) return true;
  }
}

void GrpcConnection::on_frame(const nghttp2_frame &frame) {
  if (frame.hd.type == NGHTTP2_SETTINGS && (frame.hd.flags & NGHTTP2_FLAG_ACK) == 0) established_ = true;
  if (frame.hd.type == NGHTTP2_GOAWAY) retiring_ = true;
}

void GrpcConnection::on_header(int32_t stream, std::string_view name, std::string_view value) {
  auto found = calls_.find(stream);
  if (found == calls_.end()) return;
  if (name == "grpc-status") found->second.grpc_status = parse_number(value);
  if (name == "grpc-message") found->second.grpc_message = percent_decoded(value.substr(0, 512));
  if (name == ":status") found->second.http_status = parse_number(value);
}

bool GrpcConnection::on_data(int32_t stream, const uint8_t *data, size_t size) {
  auto found = calls_.find(stream);
  if (found == calls_.end()) return true;
  found->second.incoming.append(reinterpret_cast<const char *>(data), size);
  return deliver(found->second);
}

// Hands over every whole message; false ends the connection.
bool GrpcConnection::deliver(Call &call) {
  size_t at = 0;
  while (call.incoming.size() - at >= WIRE_GRPC_HEADER_SIZE) {
    auto *head = reinterpret_cast<const uint8_t *>(call.incoming.data()) + at;
    size_t size = static_cast<size_t>(head[1]) << 24 | static_cast<size_t>(head[2]) << 16 |
                  static_cast<size_t>(head[3]) << 8 | head[4];
    if (head[0] != 0 || size > kIncomingMessageMax) {
      fail("the daemon sent a compressed or too large message");
      return false;
    }
    if (call.incoming.size() - at < WIRE_GRPC_HEADER_SIZE + size) break;
    if (!deliver_message(call, {head + WIRE_GRPC_HEADER_SIZE, size})) return false;
    at += WIRE_GRPC_HEADER_SIZE + size;
  }
  call.incoming.erase(0, at);
  return true;
}

bool GrpcConnection::deliver_message(Call &call, wire_view message) {
  if (!call.watched.empty()) {
    receiver_.on_identity(call.watched, message);
    return true;
  }
  wire_batch_reader reader{message};
  wire_result result;
  wire_status status;
  while ((status = wire_next_result(&reader, &result)) == WIRE_OK) receiver_.on_result(*this, result);
  if (status == WIRE_END) return true;
  fail(std::string("the daemon sent a ResultBatch that is ") + wire_status_name(status));
  return false;
}

void GrpcConnection::on_close(int32_t stream, uint32_t error_code) {
  auto node = calls_.extract(stream);
  if (node.empty()) return;
  Call &call = node.mapped();
  int status = call.grpc_status;
  std::string reason = grpc_status_name(status);
  if (!call.grpc_message.empty()) reason += ": " + call.grpc_message;
  if (status < 0) {
    status = 14;
    reason = "stream closed without a status (HTTP " + std::to_string(call.http_status) + ", " +
             nghttp2_http2_strerror(error_code) + ")";
  }
  if (stream == stream_) {
    retiring_ = true;
    receiver_.on_stream_closed(*this, reason);
  } else {
    receiver_.on_watch_closed(*this, call.watched, status, reason);
  }
}

}  // namespace tls_offload
