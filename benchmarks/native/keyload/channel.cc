#include "benchmarks/native/keyload/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>

#include "benchmarks/native/argument.h"

extern "C" {
#include "offload/dataplane/wire/wire_field.h"
}

namespace load {
namespace {

constexpr int32_t kWindow = 1 << 24;  // never the bottleneck
constexpr size_t kReadSize = 64 * 1024;

Channel &self(void *user_data) {
  return *static_cast<Channel *>(user_data);
}

void put_frame_header(char *at, size_t size) {
  at[0] = 0;  // not compressed
  for (int i = 0; i < 4; i++) at[1 + i] = char(size >> (24 - 8 * i));
}

size_t frame_size(const std::string &buffer, size_t at) {
  size_t size = 0;
  for (int i = 1; i <= 4; i++) size = size << 8 | uint8_t(buffer[at + size_t(i)]);
  return size;
}

void put_varint(std::string &out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += char(value | 0x80);
  out += char(value);
}

// The codec shared with the daemon has no encoder of SignRequest, which only simple clients send.
std::string sign_request(const LoadKey &key, const std::vector<uint8_t> &input) {
  std::string body(WIRE_GRPC_HEADER_SIZE, '\0');
  body += char(1 << 3 | WIRE_BYTES);
  put_varint(body, key.id.size());
  body.append(reinterpret_cast<const char *>(key.id.data()), key.id.size());
  body += char(2 << 3 | WIRE_VARINT);
  put_varint(body, key.scheme);
  body += char(3 << 3 | WIRE_BYTES);
  put_varint(body, input.size());
  body.append(reinterpret_cast<const char *>(input.data()), input.size());
  put_frame_header(body.data(), body.size() - WIRE_GRPC_HEADER_SIZE);
  return body;
}

bool parse_sign_response(wire_view message, wire_result &result) {
  wire_field field;
  wire_status status;
  while ((status = wire_next_field(&message, &field)) == WIRE_OK) {
    if (field.number == 1) status = wire_field_bytes(&field, &result.output);
    if (field.number == 2) status = wire_field_u32(&field, &result.backend);
    if (field.number == 3) status = wire_field_u32(&field, &result.batch_size);
    if (status != WIRE_OK) return false;
  }
  return status == WIRE_END;
}

}  // namespace

Channel::Channel(const Options &options, Tally &tally) : options_(options), tally_(tally) {
  slots_.resize(options.in_flight);
  for (uint32_t slot = options.in_flight; slot-- > 0;) free_.push_back(slot);
  connect_to(options.socket);
  start_session();
}

Channel::~Channel() {
  nghttp2_session_del(session_);
  if (fd_ >= 0) close(fd_);
}

void Channel::connect_to(const std::string &path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    usage_error("--socket " + path + ": longer than a Unix socket's path may be");
  memcpy(address.sun_path, path.data(), path.size());
  fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd_ < 0 || connect(fd_, reinterpret_cast<sockaddr *>(&address), sizeof address) < 0)
    usage_error("--socket " + path + ": " + strerror(errno));
  fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
}

void Channel::start_session() {
  nghttp2_session_callbacks *callbacks;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  nghttp2_session_client_new(&session_, callbacks, this);
  nghttp2_session_callbacks_del(callbacks);
  nghttp2_settings_entry window{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, uint32_t(kWindow)};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, &window, 1);
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kWindow);
  if (!options_.unary) stream_ = start_call("/offload.v1.PrivateKeyService/Stream", nullptr);
}

int32_t Channel::start_call(const char *path, void *user_data) {
  auto header = [](const char *name, const char *value) {
    auto bytes = [](const char *text) { return reinterpret_cast<uint8_t *>(const_cast<char *>(text)); };
    return nghttp2_nv{bytes(name), bytes(value), strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
  };
  nghttp2_nv headers[] = {
      header(":method", "POST"),         header(":scheme", "http"), header(":path", path),
      header(":authority", "localhost"), header("te", "trailers"),  header("content-type", "application/grpc"),
      header("user-agent", "keyload"),
  };
  nghttp2_data_provider body{};
  body.source.ptr = user_data;
  body.read_callback = user_data ? read_call : read_stream;
  return nghttp2_submit_request(session_, nullptr, headers, std::size(headers), &body, user_data);
}

void Channel::prepare(Slot &slot, Nanoseconds due) {
  slot.busy = true;
  slot.due = due;
  slot.key = next_key_;
  next_key_ = (next_key_ + 1) % options_.keys.size();
  if (options_.input_size) {
    slot.input.resize(options_.input_size);
    RAND_bytes(slot.input.data(), slot.input.size());
  } else {
    make_certificate_verify(slot.input);
  }
}

void Channel::submit(unsigned operations, Nanoseconds due) {
  if (!options_.unary) return append_message(operations, due);
  Slot &slot = slots_[free_.back()];
  free_.pop_back();
  prepare(slot, due);
  slot.request = sign_request(options_.keys[slot.key], slot.input);
  slot.response.clear();
  slot.status.clear();
  slot.message.clear();
  slot.sent = 0;
  if (start_call("/offload.v1.PrivateKeyService/Sign", &slot) < 0) break_off("no stream left on the connection");
}

void Channel::append_message(unsigned operations, Nanoseconds due) {
  size_t header = messages_.size();
  size_t each = 64 + WIRE_KEY_ID_SIZE + (options_.input_size ? options_.input_size : 256);
  messages_.resize(header + WIRE_GRPC_HEADER_SIZE + operations * each);
  wire_writer writer{reinterpret_cast<uint8_t *>(messages_.data()), header + WIRE_GRPC_HEADER_SIZE, messages_.size()};
  for (unsigned i = 0; i < operations; i++) {
    uint32_t index = free_.back();
    free_.pop_back();
    Slot &slot = slots_[index];
    prepare(slot, due);
    const LoadKey &key = options_.keys[slot.key];
    wire_operation operation{};
    operation.id = index;
    operation.key_id = {key.id.data(), key.id.size()};
    operation.signature_scheme = key.scheme;
    operation.input = {slot.input.data(), slot.input.size()};
    if (!wire_append_operation(&writer, &operation)) throw std::logic_error("an operation did not fit its message");
  }
  messages_.resize(writer.size);
  put_frame_header(messages_.data() + header, writer.size - header - WIRE_GRPC_HEADER_SIZE);
  nghttp2_session_resume_data(session_, stream_);
}

ssize_t Channel::read_stream(nghttp2_session *, int32_t, uint8_t *buffer, size_t size, uint32_t *,
                             nghttp2_data_source *, void *user_data) {
  Channel &channel = self(user_data);
  size_t count = std::min(size, channel.messages_.size() - channel.framed_);
  if (count == 0) return NGHTTP2_ERR_DEFERRED;
  memcpy(buffer, channel.messages_.data() + channel.framed_, count);
  channel.framed_ += count;
  if (channel.framed_ == channel.messages_.size()) {
    channel.messages_.clear();
    channel.framed_ = 0;
  }
  return ssize_t(count);
}

ssize_t Channel::read_call(nghttp2_session *, int32_t, uint8_t *buffer, size_t size, uint32_t *flags,
                           nghttp2_data_source *source, void *) {
  Slot &slot = *static_cast<Slot *>(source->ptr);
  size_t count = std::min(size, slot.request.size() - slot.sent);
  memcpy(buffer, slot.request.data() + slot.sent, count);
  slot.sent += count;
  if (slot.sent == slot.request.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return ssize_t(count);
}

int Channel::on_data(nghttp2_session *session, uint8_t, int32_t stream, const uint8_t *data, size_t size,
                     void *user_data) {
  if (auto *slot = static_cast<Slot *>(nghttp2_session_get_stream_user_data(session, stream)))
    slot->response.append(reinterpret_cast<const char *>(data), size);
  else
    self(user_data).take_stream_data(data, size);
  return 0;
}

int Channel::on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                       const uint8_t *value, size_t size, uint8_t, void *user_data) {
  std::string_view header(reinterpret_cast<const char *>(name), name_size);
  std::string_view text(reinterpret_cast<const char *>(value), size);
  auto *slot = static_cast<Slot *>(nghttp2_session_get_stream_user_data(session, frame->hd.stream_id));
  if (header == "grpc-status") (slot ? slot->status : self(user_data).stream_status_) = text;
  if (header == "grpc-message" && slot) slot->message = text;
  return 0;
}

int Channel::on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *user_data) {
  Channel &channel = self(user_data);
  if (auto *slot = static_cast<Slot *>(nghttp2_session_get_stream_user_data(session, stream)))
    channel.finish_call(*slot);
  else
    channel.break_off("stream ended by the daemon, gRPC status " +
                      (channel.stream_status_.empty() ? "none" : channel.stream_status_) + ", HTTP/2 error " +
                      nghttp2_http2_strerror(error));
  return 0;
}

void Channel::take_stream_data(const uint8_t *data, size_t size) {
  incoming_.append(reinterpret_cast<const char *>(data), size);
  size_t at = 0;
  while (incoming_.size() - at >= WIRE_GRPC_HEADER_SIZE) {
    size_t message = frame_size(incoming_, at);
    if (incoming_.size() - at - WIRE_GRPC_HEADER_SIZE < message) break;
    take_results({reinterpret_cast<const uint8_t *>(incoming_.data()) + at + WIRE_GRPC_HEADER_SIZE, message});
    at += WIRE_GRPC_HEADER_SIZE + message;
  }
  incoming_.erase(0, at);
}

void Channel::take_results(wire_view message) {
  wire_batch_reader reader{message};
  wire_result result;
  wire_status status;
  while ((status = wire_next_result(&reader, &result)) == WIRE_OK) take_result(result);
  if (status != WIRE_END) break_off("a message that is not a ResultBatch");
}

void Channel::take_result(const wire_result &result) {
  if (result.id >= slots_.size() || !slots_[result.id].busy) return tally_.fail("a result for an unknown operation");
  Slot &slot = slots_[result.id];
  if (result.status != 0) {
    std::string words(reinterpret_cast<const char *>(result.message.data), result.message.size);
    tally_.fail("status " + std::to_string(result.status) + ": " + words);
    return release(slot);
  }
  tally_.latency.record(now() - slot.due);
  if (options_.check && !verify(options_.keys[slot.key], slot.input, result.output.data, result.output.size)) {
    tally_.fail("the signature is not valid");
    return release(slot);
  }
  tally_.operations++;
  tally_.backends[result.backend]++;
  tally_.by_batch_size[result.batch_size <= 8 ? result.batch_size : 0]++;
  tally_.kernel_us += result.batch_size ? double(result.run_us) / result.batch_size : 0;
  tally_.run_us += result.run_us;
  tally_.queue_us += result.queue_us;
  release(slot);
}

void Channel::finish_call(Slot &slot) {
  wire_result result{};
  result.id = uint64_t(&slot - slots_.data());
  result.status = slot.status.empty() ? 2 : uint32_t(atoi(slot.status.c_str()));
  if (result.status != 0) {
    if (slot.message.empty()) slot.message = slot.status.empty() ? "call ended without a status" : "";
    result.message = {reinterpret_cast<const uint8_t *>(slot.message.data()), slot.message.size()};
    return take_result(result);
  }
  bool whole = slot.response.size() >= WIRE_GRPC_HEADER_SIZE &&
               frame_size(slot.response, 0) == slot.response.size() - WIRE_GRPC_HEADER_SIZE;
  wire_view message{reinterpret_cast<const uint8_t *>(slot.response.data()) + WIRE_GRPC_HEADER_SIZE,
                    slot.response.size() - WIRE_GRPC_HEADER_SIZE};
  if (whole && parse_sign_response(message, result)) return take_result(result);
  tally_.fail("the answer is not a SignResponse");
  release(slot);
}

void Channel::release(Slot &slot) {
  slot.busy = false;
  free_.push_back(uint32_t(&slot - slots_.data()));
}

void Channel::break_off(const std::string &why) {
  if (broken_) return;
  broken_ = true;
  size_t lost = in_flight();
  tally_.fail(why);
  for (size_t i = 1; i < lost; i++) tally_.fail(why);
}

void Channel::receive() {
  static uint8_t buffer[kReadSize];
  while (!broken_) {
    ssize_t size = read(fd_, buffer, sizeof buffer);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) return break_off(size == 0 ? "connection closed by the daemon" : strerror(errno));
    ssize_t used = nghttp2_session_mem_recv(session_, buffer, size_t(size));
    if (used < 0) return break_off(nghttp2_strerror(int(used)));
    if (size_t(size) < sizeof buffer) return;
  }
}

// Sends all frames of one turn of the loop in one write.
void Channel::flush() {
  const uint8_t *data;
  ssize_t size;
  while (!broken_ && (size = nghttp2_session_mem_send(session_, &data)) > 0)
    outgoing_.append(reinterpret_cast<const char *>(data), size_t(size));
  if (broken_ || !wants_write()) return;
  size = send(fd_, outgoing_.data() + written_, outgoing_.size() - written_, MSG_NOSIGNAL);
  if (size < 0 && errno != EAGAIN) return break_off(strerror(errno));
  if (size > 0) written_ += size_t(size);
  if (wants_write()) return;
  outgoing_.clear();
  written_ = 0;
}

}  // namespace load
