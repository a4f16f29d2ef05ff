#include "envoy_ext/module/hooks/transport_socket.h"

#include <openssl/err.h>
#include <poll.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "envoy_ext/module/envoy/escaped.h"
#include "envoy_ext/module/envoy/log.h"
#include "envoy_ext/module/envoy/poke_waker.h"
#include "envoy_ext/module/hooks/companion_filter.h"

namespace tls_offload {
namespace {

// The counters of a rejected peer.
struct RejectedPeer {
  PeerFault fault;
  Counter downstream, upstream;
};
constexpr RejectedPeer kRejectedPeers[] = {
    {PeerFault::NoCertificate, Counter::PeersRejectedNoCertificate, Counter::UpstreamPeersRejectedNoCertificate},
    {PeerFault::SpiffeId, Counter::PeersRejectedSpiffeId, Counter::UpstreamPeersRejectedSpiffeId},
    {PeerFault::UnknownCa, Counter::PeersRejectedUnknownCa, Counter::UpstreamPeersRejectedUnknownCa},
    {PeerFault::Expired, Counter::PeersRejectedExpired, Counter::UpstreamPeersRejectedExpired},
    {PeerFault::Revoked, Counter::PeersRejectedRevoked, Counter::UpstreamPeersRejectedRevoked},
    {PeerFault::RevocationUnknown, Counter::PeersRejectedRevocationUnknown,
     Counter::UpstreamPeersRejectedRevocationUnknown},
    {PeerFault::Unsuitable, Counter::PeersRejectedUnsuitable, Counter::UpstreamPeersRejectedUnsuitable},
    {PeerFault::NotAccepted, Counter::PeersRejectedNotAccepted, Counter::UpstreamPeersRejectedNotAccepted},
    {PeerFault::Other, Counter::PeersRejectedOther, Counter::UpstreamPeersRejectedOther},
};
static_assert(std::size(kRejectedPeers) == static_cast<size_t>(PeerFault::None));

// The counters of a failed operation.
struct FailedOperation {
  Failure failure;
  Counter counter;
};
constexpr FailedOperation kFailedOperations[] = {
    {Failure::Unavailable, Counter::OperationsFailedUnavailable},
    {Failure::Timeout, Counter::OperationsFailedTimeout},
    {Failure::Refused, Counter::OperationsFailedRefused},
    {Failure::Overloaded, Counter::OperationsFailedOverloaded},
    {Failure::Invalid, Counter::OperationsFailedInvalid},
    {Failure::Internal, Counter::OperationsFailedInternal},
};
static_assert(std::size(kFailedOperations) == static_cast<size_t>(Failure::Internal));

constexpr abi::IoResult kKeep{abi::Action::KeepOpen, 0, false};

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
    : context_(context), envoy_(envoy), records_(envoy), handshake_(context, *this) {
  records_.attach(handshake_.ssl());
}

TransportSocket::~TransportSocket() {
  WorkerTurn::of_this_thread().leave(*this);
  if (mapped_) unattached().erase(connection_id_);
  if (filter_ != nullptr) filter_->release();
  if (poke_ != nullptr) poke_->disarm();
}

TransportSocket *TransportSocket::of_connection(uint64_t connection_id) {
  auto found = unattached().find(connection_id);
  return found != unattached().end() ? found->second : nullptr;
}

void TransportSocket::set_callbacks() {
  if (context_.is_client()) {
    envoy_dynamic_module_callback_transport_socket_get_connection_id(envoy_, &connection_id_);
    return;
  }
  mapped_ = envoy_dynamic_module_callback_transport_socket_get_connection_id(envoy_, &connection_id_);
  if (mapped_) unattached()[connection_id_] = this;
}

void TransportSocket::on_connected() {
  began_ = Clock::now();
  if (!context_.is_client()) return;
  poke_ = PokeWaker::of(envoy_dynamic_module_callback_transport_socket_get_fd(envoy_));
  handshake_.set_waker(poke_);
}

void TransportSocket::attach(CompanionFilter *filter, std::shared_ptr<Waker> waker) {
  filter_ = filter;
  handshake_.set_waker(std::move(waker));
  unattached().erase(connection_id_);
  mapped_ = false;
}

void TransportSocket::detach() {
  WorkerTurn::of_this_thread().leave(*this);
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
  WorkerTurn &turn = WorkerTurn::of_this_thread();
  turn.leave(*this);
  Handshake::Progress progress = handshake_.advance();
  bool sent = records_.flush() != RecordIo::Flush::Failed;
  if (progress == Handshake::Progress::Failed) {
    result = records_.lost() ? peer_left(handshake_.failure()) : fail(handshake_.failure());
    return false;
  }
  if (!sent) {
    result = peer_left("peer reset the connection during the handshake");
    return false;
  }
  if (progress == Handshake::Progress::Waits) {
    if (handshake_.waiting()) turn.join(*this);
    return false;
  }
  finish_handshake();
  return state_ == State::Open;
}

void TransportSocket::finish_handshake() {
  state_ = State::Open;
  count(Counter::Handshakes, Counter::UpstreamHandshakes);
  if (SSL_session_reused(handshake_.ssl())) {
    count(Counter::HandshakesResumed, Counter::UpstreamHandshakesResumed);
  }
  if (filter_ != nullptr) filter_->record(Histogram::HandshakeUs, microseconds(Clock::now() - began_));
  // Envoy runs filters inside this call, and one of them may close this connection or write to another of this worker.
  records_.leave();
  envoy_dynamic_module_callback_transport_socket_raise_event(envoy_, abi::Event::Connected);
  records_.enter();
}

abi::IoResult TransportSocket::fail(const std::string &reason) {
  broken_ = true;
  records_.stop();
  if (failure_.empty()) failure_ = escaped(reason, Quotes::Keep);
  if (log_enabled(abi::LogLevel::Debug)) {
    log(abi::LogLevel::Debug, "[C" + std::to_string(connection_id_) + "] " + failure_);
  }
  return {abi::Action::Close, 0, false};
}

// This is not our failure: port scans, health checks of load balancers and impatient clients look like this.
abi::IoResult TransportSocket::peer_left(const std::string &reason) {
  aborted_ = true;
  return fail(reason);
}

abi::IoResult TransportSocket::noted(abi::IoResult result) {
  if (result.action == abi::Action::Close) fail(records_.failure());
  return result;
}

// A listener's connection counts in the listener's statistics; a cluster has no statistics that a module could add to,
// so its connections count in those of the key client.
void TransportSocket::count(Counter downstream, Counter upstream) {
  if (filter_ != nullptr) filter_->count(downstream);
  if (context_.is_client()) context_.client().stats().add(upstream);
}

void TransportSocket::on_operation(const Operation &operation) {
  if (context_.is_client() && operation.kind != Operation::Kind::AwaitIdentity) {
    bool failed = operation.answer().failure != Failure::None;
    context_.client().stats().add(failed ? Counter::UpstreamOperationsFailed : Counter::UpstreamOperationsOk);
  }
  if (filter_ == nullptr) return;
  const Answer &answer = operation.answer();
  if (operation.kind == Operation::Kind::AwaitIdentity) {
    filter_->count(Counter::IdentityWaits);
    if (answer.failure != Failure::None) filter_->count(Counter::IdentityWaitsFailed);
    return;
  }
  filter_->record(Histogram::OperationUs, microseconds(operation.elapsed()));
  if (answer.failure != Failure::None) {
    for (const auto &[failure, counter] : kFailedOperations) {
      if (failure == answer.failure) filter_->count(counter);
    }
    return;
  }
  filter_->count(Counter::OperationsOk);
  if (answer.backend == WIRE_BACKEND_SOFTWARE) filter_->count(Counter::OperationsSoftware);
  if (answer.backend == WIRE_BACKEND_IFMA8) filter_->count(Counter::OperationsIfma8);
  filter_->record(Histogram::DaemonQueueUs, answer.queue_us);
  filter_->record(Histogram::DaemonRunUs, answer.run_us);
  filter_->record(Histogram::BatchSize, answer.batch_size);
}

void TransportSocket::on_peer_rejected(PeerFault fault) {
  count(Counter::PeersRejected, Counter::UpstreamPeersRejected);
  for (const RejectedPeer &rejected : kRejectedPeers) {
    if (rejected.fault == fault) count(rejected.downstream, rejected.upstream);
  }
}

// ---- data ----

abi::IoResult TransportSocket::do_read() {
  WorkerTurn::of_this_thread().event(*this);
  if (state_ == State::Closed) return {abi::Action::Close, 0, false};
  records_.enter();
  abi::IoResult result = kKeep;
  if (state_ == State::Open || drive(result)) result = noted(records_.read());
  records_.leave();
  return result;
}

abi::IoResult TransportSocket::do_write(bool end_stream) {
  WorkerTurn &turn = WorkerTurn::of_this_thread();
  turn.event(*this);
  if (state_ == State::Closed) return {abi::Action::Close, 0, false};
  // This call was made for the worker's turn, which continues. If the peer has closed too, a later call will notice.
  if (handshake_.waiting() && turn.called(*this) && handshake_.waiting()) return kKeep;
  records_.enter();
  abi::IoResult result = kKeep;
  bool handshaking = state_ == State::Handshaking;
  if (!handshaking || drive(result)) {
    // The peer's first bytes may have come with its Finished, and their read event has been consumed.
    if (handshaking) envoy_dynamic_module_callback_transport_socket_set_is_readable(envoy_);
    result = noted(records_.write(end_stream));
  }
  records_.leave();
  return result;
}

void TransportSocket::close(abi::Event, bool abort_reset) {
  if (state_ == State::Closed) return;
  if (state_ == State::Open && !abort_reset) {
    records_.enter();
    records_.send_close_notify();
    records_.leave();
  }
  WorkerTurn::of_this_thread().leave(*this);
  if (handshake_.cancel() && filter_ != nullptr) filter_->count(Counter::OperationsCancelled);
  if (state_ == State::Handshaking) {
    if (broken_ && !aborted_) {
      count(Counter::HandshakesFailed, Counter::UpstreamHandshakesFailed);
    } else {
      count(Counter::HandshakesAborted, Counter::UpstreamHandshakesAborted);
    }
  }
  state_ = State::Closed;
  if (filter_ != nullptr) filter_->release();
  if (poke_ != nullptr) poke_->disarm();
}

std::string_view TransportSocket::protocol() {
  if (protocol_.empty() && state_ == State::Open) protocol_ = handshake_.fact(Fact::Alpn);
  return protocol_;
}

std::string_view TransportSocket::failure_reason() {
  return failure_;
}

}  // namespace tls_offload
