// The receiving side of a connection to the daemon: bytes, frames, messages, the ends of calls.
#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "envoy_ext/module/client/grpc_connection.h"
#include "envoy_ext/module/client/grpc_headers.h"
#include "envoy_ext/module/envoy/escaped.h"
#include "offload/dataplane/wire/status.h"

namespace tls_offload {
namespace {

constexpr size_t kIncomingMessageMax = 4 * 1024 * 1024;  // an identity with many large trust bundles
constexpr size_t kPeekSize = 4096;                       // enough for an identity's name, which comes first in its news

// A daemon that refuses the connection begins with GOAWAY in place of SETTINGS: 9 bytes of frame header, 4 of the last
// stream, 4 of the error, and the reason. nghttp2 would only report that SETTINGS are missing.
constexpr size_t kGoawayReason = 17;

bool is_refusal(const uint8_t *data, size_t size) {
  return size >= kGoawayReason && data[3] == NGHTTP2_GOAWAY;
}

std::string refusal_of(const uint8_t *data, size_t size) {
  std::string_view said(reinterpret_cast<const char *>(data) + kGoawayReason, size - kGoawayReason);
  return "the daemon refuses the connection: " + escaped(said, Quotes::Escape, 300);
}

}  // namespace

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

// Refuses the message that begins in `incoming`: it concerns one identity, and the others continue.
bool GrpcConnection::refuse_large(int32_t stream, Call &call, size_t size) {
  auto *start = reinterpret_cast<const uint8_t *>(call.incoming.data()) + WIRE_GRPC_HEADER_SIZE;
  size_t there = call.incoming.size() - WIRE_GRPC_HEADER_SIZE;
  wire_view name{};
  bool shared = stream == shared_watch_;
  if (shared && !wire_peek_identity_news({start, there}, &name)) {
    fail("the daemon sent a malformed identity update");
    return false;
  }
  std::string reason = "its message of " + std::to_string(size) + " bytes is larger than the " +
                       std::to_string(kIncomingMessageMax) + " accepted; are its trust bundles too large?";
  call.skip = size - there;
  if (shared) {
    std::string text(reinterpret_cast<const char *>(name.data), name.size);
    call.incoming.clear();
    if (shared_names_.count(text) > 0) receiver_.on_identity_refused(*this, text, RPC_RESOURCE_EXHAUSTED, reason);
    return true;
  }
  call.incoming.clear();
  call.grpc_status = RPC_RESOURCE_EXHAUSTED;
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
    fail("the daemon sent a malformed identity update");
    return false;
  }
  std::string name(reinterpret_cast<const char *>(news.name.data), news.name.size);
  if (shared_names_.count(name) == 0) return true;  // it was in flight when we stopped watching
  if (news.status == RPC_OK) {
    receiver_.on_identity(name, news.identity);
    return true;
  }
  int status = static_cast<int>(std::min<uint32_t>(news.status, INT32_MAX));
  std::string reason = rpc_status_name(status);
  if (news.message.size > 0) {
    reason +=
        ": " + escaped({reinterpret_cast<const char *>(news.message.data), news.message.size}, Quotes::Escape, 300);
  }
  if (status == RPC_NOT_FOUND) {
    receiver_.on_identity_refused(*this, name, status, reason);
  } else {
    shared_names_.erase(name);
    receiver_.on_watch_closed(*this, name, status, reason);
  }
  return true;
}

void GrpcConnection::on_shared_watch_closed(int status, const std::string &reason) {
  shared_watch_ = -1;
  has_shared_watch_ = status != RPC_UNIMPLEMENTED;
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
  std::string reason = rpc_status_name(status);
  if (!call.grpc_message.empty()) reason += ": " + call.grpc_message;
  if (status < 0) {
    status = RPC_UNAVAILABLE;
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
