#include "transport_socket.h"

#include <openssl/err.h>
#include <poll.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "companion_filter.h"
#include "log.h"

namespace tls_offload {
namespace {

constexpr abi::IoResult kKeep{abi::Action::KeepOpen, 0, false};
constexpr size_t kRecordMax = 16 * 1024;
constexpr size_t kBurst = 4 * kRecordMax;  // plaintext sealed before the socket is written to

// Sockets that wait for their filter: Envoy makes both on this worker, the socket first.
std::unordered_map<uint64_t, TransportSocket *> &unattached() {
  thread_local std::unordered_map<uint64_t, TransportSocket *> map;
  return map;
}

uint64_t microseconds(Duration duration) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(duration).count());
}

}  // namespace

TransportSocket::TransportSocket(const TlsContext &context, abi::Socket envoy)
    : context_(context), envoy_(envoy), handshake_(context, *this) {
  bssl::UniquePtr<BIO> bio = io_.make_bio();
  BIO *raw = bio.release();  // SSL_set_bio takes one reference when both are the same
  SSL_set_bio(handshake_.ssl(), raw, raw);
}

TransportSocket::~TransportSocket() {
  if (mapped_) unattached().erase(connection_id_);
  if (filter_ != nullptr) filter_->release();
}

TransportSocket *TransportSocket::of_connection(uint64_t connection_id) {
  auto found = unattached().find(connection_id);
  return found != unattached().end() ? found->second : nullptr;
}

void TransportSocket::set_callbacks() {
  mapped_ = envoy_dynamic_module_callback_transport_socket_get_connection_id(envoy_, &connection_id_);
  if (mapped_) unattached()[connection_id_] = this;
}

void TransportSocket::attach(CompanionFilter *filter, std::shared_ptr<Waker> waker) {
  filter_ = filter;
  handshake_.set_waker(std::move(waker));
  unattached().erase(connection_id_);
  mapped_ = false;
}

void TransportSocket::detach() {
  handshake_.cancel();
  handshake_.set_waker(nullptr);
  filter_ = nullptr;
}

void TransportSocket::resume() {
  // Writable, not readable: a filter may have disabled reading, and then a read event would not come.
  if (state_ == State::Handshaking) envoy_dynamic_module_callback_transport_socket_set_is_writable(envoy_);
}

// ---- handshake ----

bool TransportSocket::peer_gone() const {
  pollfd peer{envoy_dynamic_module_callback_transport_socket_get_fd(envoy_), POLLRDHUP, 0};
  return poll(&peer, 1, 0) == 1 && (peer.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0;
}

bool TransportSocket::drive(abi::IoResult &result) {
  result = kKeep;
  if (handshake_.waiting()) {
    if (peer_gone()) result = peer_left("peer closed the connection while its handshake waited for the daemon");
    return false;
  }
  Handshake::Progress progress = handshake_.advance();
  bool sent = io_.flush() != RecordIo::Flush::Failed;
  if (progress == Handshake::Progress::Failed) {
    result = io_.lost() ? peer_left(handshake_.failure()) : fail(handshake_.failure());
    return false;
  }
  if (!sent) {
    result = peer_left("peer reset the connection during the handshake");
    return false;
  }
  if (progress == Handshake::Progress::Waits) return false;
  finish_handshake();
  return state_ == State::Open;
}

void TransportSocket::finish_handshake() {
  state_ = State::Open;
  if (filter_ != nullptr) {
    filter_->count(Counter::Handshakes);
    if (SSL_session_reused(handshake_.ssl())) filter_->count(Counter::HandshakesResumed);
    filter_->record(Histogram::HandshakeUs, microseconds(Clock::now() - began_));
  }
  // Envoy runs filters inside this call, and one of them may close this connection or write to another of this worker.
  io_.leave();
  envoy_dynamic_module_callback_transport_socket_raise_event(envoy_, abi::Event::Connected);
  io_.enter(envoy_);
}

abi::IoResult TransportSocket::fail(std::string reason) {
  broken_ = true;
  if (failure_.empty()) failure_ = std::move(reason);
  if (log_enabled(abi::LogLevel::Debug)) {
    log(abi::LogLevel::Debug, "[C" + std::to_string(connection_id_) + "] " + failure_);
  }
  return {abi::Action::Close, 0, false};
}

// Not our failure: port scans, health checks of load balancers and impatient clients look like this.
abi::IoResult TransportSocket::peer_left(std::string reason) {
  aborted_ = true;
  return fail(std::move(reason));
}

void TransportSocket::on_operation(const Operation &operation) {
  if (filter_ == nullptr) return;
  const Answer &answer = operation.answer();
  if (operation.kind == Operation::Kind::AwaitIdentity) {
    filter_->count(Counter::IdentityWaits);
    if (answer.failure != Failure::None) filter_->count(Counter::IdentityWaitsFailed);
    return;
  }
  filter_->record(Histogram::OperationUs, microseconds(operation.elapsed()));
  switch (answer.failure) {
    case Failure::None: break;
    case Failure::Unavailable: filter_->count(Counter::OperationsFailedUnavailable); return;
    case Failure::Timeout: filter_->count(Counter::OperationsFailedTimeout); return;
    case Failure::Refused: filter_->count(Counter::OperationsFailedRefused); return;
    case Failure::Overloaded: filter_->count(Counter::OperationsFailedOverloaded); return;
    case Failure::Invalid: filter_->count(Counter::OperationsFailedInvalid); return;
    case Failure::Internal: filter_->count(Counter::OperationsFailedInternal); return;
  }
  filter_->count(Counter::OperationsOk);
  if (answer.backend == WIRE_BACKEND_SOFTWARE) filter_->count(Counter::OperationsSoftware);
  if (answer.backend == WIRE_BACKEND_IFMA8) filter_->count(Counter::OperationsIfma8);
  filter_->record(Histogram::DaemonQueueUs, answer.queue_us);
  filter_->record(Histogram::DaemonRunUs, answer.run_us);
  filter_->record(Histogram::BatchSize, answer.batch_size);
}

void TransportSocket::on_peer_rejected() {
  if (filter_ != nullptr) filter_->count(Counter::PeersRejected);
}

// ---- data ----

abi::IoResult TransportSocket::do_read() {
  if (state_ == State::Closed) return {abi::Action::Close, 0, false};
  io_.enter(envoy_);
  abi::IoResult result = kKeep;
  if (state_ == State::Open || drive(result)) result = read_records();
  io_.leave();
  return result;
}

abi::IoResult TransportSocket::read_records() {
  thread_local std::unique_ptr<char[]> plaintext(new char[kRecordMax]);
  abi::IoResult result = kKeep;
  for (;;) {
    ERR_clear_error();
    int got = SSL_read(handshake_.ssl(), plaintext.get(), kRecordMax);
    if (got > 0) {
      envoy_dynamic_module_callback_transport_socket_read_buffer_add(envoy_, plaintext.get(), static_cast<size_t>(got));
      result.bytes += static_cast<uint64_t>(got);
      if (!envoy_dynamic_module_callback_transport_socket_should_drain_read_buffer(envoy_)) continue;
      // Envoy has enough for now; its edge is consumed, so it is told that there may be more.
      envoy_dynamic_module_callback_transport_socket_set_is_readable(envoy_);
      break;
    }
    int error = SSL_get_error(handshake_.ssl(), got);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) break;
    if (error == SSL_ERROR_ZERO_RETURN || (error == SSL_ERROR_SYSCALL && io_.peer_closed())) {
      // With close_notify or without: as stock Envoy, the end of the stream is left to the protocol above to judge.
      result.end_stream_read = true;
      break;
    }
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    fail(std::string("TLS read failed: ") + (reason != nullptr ? reason : "connection reset"));
    ERR_clear_error();
    result.action = abi::Action::Close;
    break;
  }
  // Alerts and answers to key updates.
  if (io_.flush() == RecordIo::Flush::Failed) result.action = abi::Action::Close;
  return result;
}

abi::IoResult TransportSocket::do_write(bool end_stream) {
  if (state_ == State::Closed) return {abi::Action::Close, 0, false};
  io_.enter(envoy_);
  abi::IoResult result = kKeep;
  bool handshaking = state_ == State::Handshaking;
  if (!handshaking || drive(result)) {
    // The peer's first bytes may have come with its Finished, and their read event is gone.
    if (handshaking) envoy_dynamic_module_callback_transport_socket_set_is_readable(envoy_);
    result = write_records(end_stream);
  }
  io_.leave();
  return result;
}

// Envoy's write buffer is drained only when the records made of it are with the socket: Envoy takes an empty buffer to
// mean that everything was sent, and may close.
bool TransportSocket::flush_pending(uint64_t &drained, bool &failed) {
  RecordIo::Flush flushed = io_.flush();
  failed = flushed == RecordIo::Flush::Failed;
  if (flushed != RecordIo::Flush::Done) return false;
  if (encrypted_ > 0) envoy_dynamic_module_callback_transport_socket_write_buffer_drain(envoy_, encrypted_);
  drained += std::exchange(encrypted_, 0);
  return true;
}

abi::IoResult TransportSocket::write_records(bool end_stream) {
  abi::IoResult result = kKeep;
  bool failed = false;
  while (flush_pending(result.bytes, failed)) {
    encrypted_ = encrypt(kBurst, failed);
    if (failed || encrypted_ == 0) break;
  }
  if (failed || broken_) {
    fail("TLS write failed");
    result.action = abi::Action::Close;
  } else if (end_stream && encrypted_ == 0 && !io_.blocked()) {
    send_close_notify();
  }
  return result;
}

// Seals up to `most` bytes of the start of Envoy's write buffer in full records, as far as there are bytes for them.
size_t TransportSocket::encrypt(size_t most, bool &failed) {
  constexpr size_t kSlices = 64;
  abi::Buffer slices[kSlices];
  size_t count = kSlices;
  if (envoy_dynamic_module_callback_transport_socket_write_buffer_length(envoy_) == 0) return 0;
  envoy_dynamic_module_callback_transport_socket_write_buffer_get_slices(envoy_, slices, &count);
  thread_local std::unique_ptr<char[]> gathered(new char[kRecordMax]);
  size_t total = 0, held = 0;
  auto seal = [&](const char *data, size_t size) {
    ERR_clear_error();
    failed = failed || SSL_write(handshake_.ssl(), data, static_cast<int>(size)) != static_cast<int>(size);
  };
  for (size_t i = 0; i < count && total < most && !failed; i++) {
    const char *data = slices[i].data;
    size_t left = std::min(slices[i].size, most - total);
    total += left;
    while (left > 0 && !failed) {
      if (held == 0 && left >= kRecordMax) {  // a whole record in place
        seal(data, kRecordMax);
        data += kRecordMax;
        left -= kRecordMax;
        continue;
      }
      size_t taken = std::min(left, kRecordMax - held);
      std::memcpy(gathered.get() + held, data, taken);
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

void TransportSocket::send_close_notify() {
  if (close_notify_sent_ || broken_) return;
  close_notify_sent_ = true;
  ERR_clear_error();
  SSL_shutdown(handshake_.ssl());
  io_.flush();
  ERR_clear_error();
}

void TransportSocket::close(abi::Event, bool abort_reset) {
  if (state_ == State::Closed) return;
  if (state_ == State::Open && !abort_reset) {
    io_.enter(envoy_);
    send_close_notify();
    io_.leave();
  }
  if (handshake_.cancel() && filter_ != nullptr) filter_->count(Counter::OperationsCancelled);
  if (state_ == State::Handshaking && filter_ != nullptr) {
    filter_->count(broken_ && !aborted_ ? Counter::HandshakesFailed : Counter::HandshakesAborted);
  }
  state_ = State::Closed;
  if (filter_ != nullptr) filter_->release();
}

std::string_view TransportSocket::protocol() {
  if (protocol_.empty() && state_ == State::Open) protocol_ = handshake_.fact(Fact::Alpn);
  return protocol_;
}

std::string_view TransportSocket::failure_reason() {
  return failure_;
}

}  // namespace tls_offload
