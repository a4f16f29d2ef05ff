#include "envoy_ext/module/tls/record_stream.h"

#include <openssl/err.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace tls_offload {
namespace {

constexpr abi::IoResult kKeep{abi::Action::KeepOpen, 0, false};
constexpr size_t kRecordMax = 16 * 1024;
constexpr size_t kBurst = 4 * kRecordMax;  // plaintext sealed before the socket is written to

}  // namespace

void RecordStream::attach(SSL *ssl) {
  ssl_ = ssl;
  BIO *bio = io_.make_bio().release();
  SSL_set_bio(ssl, bio, bio);  // takes one reference when both are the same
}

abi::IoResult RecordStream::read() {
  thread_local std::unique_ptr<char[]> plaintext(new char[kRecordMax]);
  abi::IoResult result = kKeep;
  for (;;) {
    ERR_clear_error();
    int got = SSL_read(ssl_, plaintext.get(), kRecordMax);
    if (got > 0) {
      envoy_dynamic_module_callback_transport_socket_read_buffer_add(envoy_, plaintext.get(), static_cast<size_t>(got));
      result.bytes += static_cast<uint64_t>(got);
      if (!envoy_dynamic_module_callback_transport_socket_should_drain_read_buffer(envoy_)) continue;
      // Envoy has enough for now. Its read event is consumed, so it is told that there may be more.
      envoy_dynamic_module_callback_transport_socket_set_is_readable(envoy_);
      break;
    }
    int error = SSL_get_error(ssl_, got);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) break;
    if (error == SSL_ERROR_ZERO_RETURN || (error == SSL_ERROR_SYSCALL && io_.peer_closed())) {
      // Whether or not close_notify came: like stock Envoy, this leaves the judgement of the stream's end to the
      // protocol above.
      result.end_stream_read = true;
      break;
    }
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    failure_ = std::string("TLS read failed: ") + (reason != nullptr ? reason : "connection reset");
    ERR_clear_error();
    result.action = abi::Action::Close;
    break;
  }
  // Sends alerts and answers to key updates.
  if (io_.flush() == RecordIo::Flush::Failed) result.action = abi::Action::Close;
  return result;
}

// Envoy's write buffer is drained only when the socket has taken the records made from it: Envoy takes an empty buffer
// to mean that everything was sent, and may close.
bool RecordStream::flush_pending(uint64_t &drained, bool &failed) {
  RecordIo::Flush flushed = io_.flush();
  failed = flushed == RecordIo::Flush::Failed;
  if (flushed != RecordIo::Flush::Done) return false;
  if (encrypted_ > 0) envoy_dynamic_module_callback_transport_socket_write_buffer_drain(envoy_, encrypted_);
  drained += std::exchange(encrypted_, 0);
  return true;
}

abi::IoResult RecordStream::write(bool end_stream) {
  abi::IoResult result = kKeep;
  bool failed = false;
  while (flush_pending(result.bytes, failed)) {
    encrypted_ = encrypt(kBurst, failed);
    if (failed || encrypted_ == 0) break;
  }
  if (failed || stopped_) {
    failure_ = "TLS write failed";
    result.action = abi::Action::Close;
  } else if (end_stream && encrypted_ == 0 && !io_.blocked()) {
    send_close_notify();
  }
  return result;
}

// Seals up to `most` bytes from the start of Envoy's write buffer, in full records as far as there are bytes for them.
size_t RecordStream::encrypt(size_t most, bool &failed) {
  constexpr size_t kSlices = 64;
  abi::Buffer slices[kSlices];
  size_t count = kSlices;
  if (envoy_dynamic_module_callback_transport_socket_write_buffer_length(envoy_) == 0) return 0;
  envoy_dynamic_module_callback_transport_socket_write_buffer_get_slices(envoy_, slices, &count);
  thread_local std::unique_ptr<char[]> gathered(new char[kRecordMax]);
  size_t total = 0, held = 0;
  auto seal = [&](const char *data, size_t size) {
    ERR_clear_error();
    failed = failed || SSL_write(ssl_, data, static_cast<int>(size)) != static_cast<int>(size);
  };
  for (size_t i = 0; i < count && total < most && !failed; i++) {
    const char *data = slices[i].data;
    size_t left = std::min(slices[i].size, most - total);
    total += left;
    while (left > 0 && !failed) {
      if (held == 0 && left >= kRecordMax) {  // a whole record, sealed without a copy
        seal(data, kRecordMax);
        data += kRecordMax;
        left -= kRecordMax;
        continue;
      }
      size_t taken = std::min(left, kRecordMax - held);
      copy_bytes(gathered.get() + held, data, taken);
      held += taken;
      data += taken;
      left -= taken;
      if (held == kRecordMax) {
        seal(gathered.get(), held);
        held = 0;
      }
    }
  }
  if (held > 0) seal(gathered.get(), held);
  return total;
}

void RecordStream::send_close_notify() {
  if (close_notify_sent_ || stopped_) return;
  close_notify_sent_ = true;
  ERR_clear_error();
  SSL_shutdown(ssl_);
  io_.flush();
  ERR_clear_error();
}

}  // namespace tls_offload
