#include "envoy_ext/module/client/grpc_connection.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "envoy_ext/module/envoy/escaped.h"

namespace tls_offload {
namespace {

constexpr size_t kIncomingMessageMax = 4 * 1024 * 1024;  // an identity with many large trust bundles
constexpr size_t kOutgoingMax = 1024 * 1024;             // a daemon that does not read: operations wait with us instead
constexpr int32_t kWindow = 1024 * 1024;
constexpr size_t kOperationOverhead = 128;  // an operation's fields but for its input
constexpr size_t kPeekSize = 4096;          // enough for the name of an identity, which stands first in its news
constexpr int kNotFound = 5, kResourceExhausted = 8, kUnimplemented = 12;

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

// A daemon that has no place for us begins with GOAWAY, where HTTP/2 has SETTINGS: 9 bytes of frame header, 4 of the
// last stream, 4 of the error, and the reason. nghttp2 would only say that SETTINGS are missing.
constexpr size_t kGoawayReason = 17;

bool is_refusal(const uint8_t *data, size_t size) {
  return size >= kGoawayReason && data[3] == NGHTTP2_GOAWAY;
}

std::string refusal_of(const uint8_t *data, size_t size) {
  std::string_view said(reinterpret_cast<const char *>(data) + kGoawayReason, size - kGoawayReason);
  return "the daemon refuses the connection: " + escaped(said, Quotes::Escape, 300);
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
  // A large one gets a message of its own.
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
  return false;  // this does not happen: a whole message has room for each operation
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
      receive();  // a daemon that refuses us has said why before it closed
      return lost(error);
    }
    unsent_.erase(0, static_cast<size_t>(sent));
  }
  if (!nghttp2_session_want_read(session_) && !nghttp2_session_want_write(session_)) {
    return fail("the daemon ended the session"), false;
  }
  return true;
}

// A daemon that has gone is found by reading or by writing, before or after its end: one reason for all of these.
bool GrpcConnection::lost(int error) {
  fail(error == EPIPE || error == ECONNRESET ? "the daemon closed the connection" : strerror(error));
  return false;
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
      return lost(errno);
    }
    if (got == 0) return lost(EPIPE);
    last_received_ = Clock::now();
    if (!established_ && is_refusal(buffer, static_cast<size_t>(got)))
      return fail(refusal_of(buffer, static_cast<size_t>(got))), false;
    ssize_t used = nghttp2_session_mem_recv(session_, buffer, static_cast<size_t>(got));
    if (used < 0) return fail(nghttp2_strerror(static_cast<int>(used))), false;
    if (static_cast<size_t>(got) < sizeof buffer) return true;
  }
}

void GrpcConnection::on_frame(const nghttp2_frame &frame) {
  if (frame.hd.type == NGHTTP2_SETTINGS && (frame.hd.flags & NGHTTP2_FLAG_ACK) == 0) established_ = true;
  if (frame.hd.type == NGHTTP2_HEADERS && frame.hd.stream_id == stream_) stream_answered_ = true;
  if (frame.hd.type != NGHTTP2_GOAWAY) return;
  retiring_ = true;
}

void GrpcConnection::on_header(int32_t stream, std::string_view name, std::string_view value) {
  auto found = calls_.find(stream);
  if (found == calls_.end()) return;
  if (name == "grpc-status") found->second.grpc_status = parse_number(value);
  if (name == "grpc-message") found->second.grpc_message = escaped(percent_decoded(value.substr(0, 512)));
  if (name == ":status") found->second.http_status = parse_number(value);
  if (name == "offload-input-max" && stream == stream_) {
    auto given = static_cast<size_t>(std::max(parse_number(value), 0));
    input_max_ = std::clamp<size_t>(given, WIRE_INPUT_MAX_OF_OLD, WIRE_INPUT_MAX);
  }
}

bool GrpcConnection::on_data(int32_t stream, const uint8_t *data, size_t size) {
  auto found = calls_.find(stream);
  if (found == calls_.end()) return true;
  Call &call = found->second;
  size_t skipped = std::min(call.skip, size);
  call.skip -= skipped;
  call.incoming.append(reinterpret_cast<const char *>(data) + skipped, size - skipped);
  return deliver(stream, call);
}

// Hands over every whole message; false ends the connection.
bool GrpcConnection::deliver(int32_t stream, Call &call) {
  size_t at = 0;
  while (call.incoming.size() - at >= WIRE_GRPC_HEADER_SIZE) {
    auto *head = reinterpret_cast<const uint8_t *>(call.incoming.data()) + at;
    size_t size = static_cast<size_t>(head[1]) << 24 | static_cast<size_t>(head[2]) << 16 |
                  static_cast<size_t>(head[3]) << 8 | head[4];
    size_t there = call.incoming.size() - at - WIRE_GRPC_HEADER_SIZE;
    if (head[0] != 0 || (size > kIncomingMessageMax && stream == stream_)) {
      fail("the daemon sent a compressed or too large message");
      return false;
    }
    if (there < std::min(size, size > kIncomingMessageMax ? kPeekSize : size)) break;
    if (size > kIncomingMessageMax) {
      call.incoming.erase(0, at);
      return refuse_large(stream, call, size);
    }
    if (!deliver_message(stream, call, {head + WIRE_GRPC_HEADER_SIZE, size})) return false;
    at += WIRE_GRPC_HEADER_SIZE + size;
  }
  call.incoming.erase(0, at);
  return true;
}

// The message that begins in `incoming`: it concerns one identity, and the others go on.
bool GrpcConnection::refuse_large(int32_t stream, Call &call, size_t size) {
  auto *start = reinterpret_cast<const uint8_t *>(call.incoming.data()) + WIRE_GRPC_HEADER_SIZE;
  size_t there = call.incoming.size() - WIRE_GRPC_HEADER_SIZE;
  wire_view name{};
  bool shared = stream == shared_watch_;
  if (shared && !wire_peek_identity_news({start, there}, &name)) {
    fail("the daemon sent malformed news of an identity");
    return false;
  }
  std::string reason = "its message of " + std::to_string(size) + " bytes is larger than the " +
                       std::to_string(kIncomingMessageMax) + " that are taken; are its trust bundles too large?";
  call.skip = size - there;
  if (shared) {
    std::string text(reinterpret_cast<const char *>(name.data), name.size);
    call.incoming.clear();
    if (shared_names_.count(text) > 0) receiver_.on_identity_refused(*this, text, kResourceExhausted, reason);
    return true;
  }
  call.incoming.clear();
  call.grpc_status = kResourceExhausted;
  call.grpc_message = reason;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
  return true;
}

bool GrpcConnection::deliver_message(int32_t stream, Call &call, wire_view message) {
  if (stream == shared_watch_) return deliver_news(message);
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

bool GrpcConnection::deliver_news(wire_view message) {
  wire_identity_news news;
  if (wire_decode_identity_news(message, &news) != WIRE_OK) {
    fail("the daemon sent malformed news of an identity");
    return false;
  }
  std::string name(reinterpret_cast<const char *>(news.name.data), news.name.size);
  if (shared_names_.count(name) == 0) return true;  // it was on its way when we lost interest
  if (news.status == 0) {
    receiver_.on_identity(name, news.identity);
    return true;
  }
  int status = static_cast<int>(std::min<uint32_t>(news.status, INT32_MAX));
  std::string reason = grpc_status_name(status);
  if (news.message.size > 0) {
    reason +=
        ": " + escaped({reinterpret_cast<const char *>(news.message.data), news.message.size}, Quotes::Escape, 300);
  }
  if (status == kNotFound) {
    receiver_.on_identity_refused(*this, name, status, reason);
  } else {
    shared_names_.erase(name);
    receiver_.on_watch_closed(*this, name, status, reason);
  }
  return true;
}

void GrpcConnection::on_shared_watch_closed(int status, const std::string &reason) {
  shared_watch_ = -1;
  has_shared_watch_ = status != kUnimplemented;
  for (const std::string &name : std::exchange(shared_names_, {})) {
    if (has_shared_watch_) {
      receiver_.on_watch_closed(*this, name, status, reason);
    } else {
      watch_alone(name);
    }
  }
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
  } else if (stream == shared_watch_) {
    on_shared_watch_closed(status, reason);
  } else {
    receiver_.on_watch_closed(*this, call.watched, status, reason);
  }
}

}  // namespace tls_offload
