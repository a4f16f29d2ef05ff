// The TLS transport socket of a listener's or a cluster's connection, on its worker thread.
//
//   Handshaking --done--> Open --close--> Closed          Handshaking --failed, or the peer left--> Closed
//
// While the handshake waits for the daemon nothing is read, so poll() detects that the peer closed. The answer wakes
// the worker, and `do_write` continues the handshake: downstream, the companion filter makes the socket writable;
// upstream, the descriptor is poked (poke_waker.h).
#ifndef TLS_OFFLOAD_TRANSPORT_SOCKET_H
#define TLS_OFFLOAD_TRANSPORT_SOCKET_H

#include <memory>
#include <string>

#include "envoy_ext/module/client/worker_turn.h"
#include "envoy_ext/module/envoy/abi.h"
#include "envoy_ext/module/tls/handshake.h"
#include "envoy_ext/module/tls/record_stream.h"
#include "envoy_ext/module/tls/tls_context.h"

namespace tls_offload {

class CompanionFilter;

class TransportSocket final : private Handshake::Observer, private WorkerTurn::Member {
 public:
  TransportSocket(const TlsContext &context, abi::Socket envoy);
  ~TransportSocket() override;

  // Hooks.
  void set_callbacks();
  void on_connected();
  abi::IoResult do_read();
  abi::IoResult do_write(bool end_stream);
  void close(abi::Event event, bool abort_reset);
  bool can_flush_close() const { return state_ == State::Open; }
  std::string_view protocol();
  std::string_view failure_reason();

  // The companion filter of the same connection.
  void attach(CompanionFilter *filter, std::shared_ptr<Waker> waker);
  void detach();
  void resume();  // an answer has come
  std::string fact(Fact fact) const { return handshake_.fact(fact); }

  // The socket of a connection of this worker that has no filter yet; null if not found.
  static TransportSocket *of_connection(uint64_t connection_id);

 private:
  enum class State { Handshaking, Open, Closed };

  void on_operation(const Operation &operation) override;
  void on_peer_rejected(PeerFault fault) override;

  bool still_waits() const override { return handshake_.waiting(); }
  void call_back() override { envoy_dynamic_module_callback_transport_socket_set_is_writable(envoy_); }
  KeyClient &key_client() const override { return context_.client(); }

  // False when the handshake is not done; `result` is then to be returned to Envoy.
  bool drive(abi::IoResult &result);
  void finish_handshake();
  abi::IoResult fail(const std::string &reason);
  abi::IoResult noted(abi::IoResult result);  // handles the result of record I/O
  abi::IoResult peer_left(const std::string &reason);
  void count(Counter downstream, Counter upstream);
  bool peer_gone() const;

  const TlsContext &context_;
  const abi::Socket envoy_;
  RecordStream records_;
  Handshake handshake_;
  State state_ = State::Handshaking;
  CompanionFilter *filter_ = nullptr;
  std::shared_ptr<Waker> poke_;  // upstream
  uint64_t connection_id_ = 0;
  bool mapped_ = false;
  bool aborted_ = false;  // by the peer, during the handshake
  bool broken_ = false;
  Time began_{};
  std::string failure_;
  std::string protocol_;
};

}  // namespace tls_offload

#endif
