// One handshake, as server or client: which identity and credentials it uses, the operation it waits for, and its
// facts.
//
// BoringSSL calls back while SSL_do_handshake runs; when something must come from the daemon, an operation is submitted
// and BoringSSL is told to retry. Until the operation has finished (`waiting`), there is no need to call
// SSL_do_handshake.
#ifndef TLS_OFFLOAD_HANDSHAKE_H
#define TLS_OFFLOAD_HANDSHAKE_H

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "envoy_ext/module/client/private_key.h"
#include "envoy_ext/module/config/filter_state.h"
#include "envoy_ext/module/tls/tls_context.h"

namespace tls_offload {

class Handshake final : private PrivateKeyUser {
 public:
  enum class Progress { Done, Waits, Failed };
  // Called on the worker thread for each answer, before BoringSSL sees it.
  class Observer {
   public:
    virtual ~Observer() = default;
    virtual void on_operation(const Operation &operation) = 0;
    virtual void on_peer_rejected(PeerFault fault) = 0;
  };

  Handshake(const TlsContext &context, Observer &observer);
  ~Handshake() { cancel(); }
  Handshake(const Handshake &) = delete;
  Handshake &operator=(const Handshake &) = delete;

  SSL *ssl() const { return ssl_.get(); }
  void set_waker(std::shared_ptr<Waker> waker) { waker_ = std::move(waker); }

  // Advances as far as possible. Waits means that it waits for the daemon (`waiting`) or for the peer's bytes.
  Progress advance();
  bool waiting() const { return operation_ != nullptr && !operation_->finished(); }
  // The connection is being closed. True when an operation was in flight.
  bool cancel();

  const std::string &failure() const { return failure_; }
  // To be called after Done; empty when there is no such fact.
  std::string fact(Fact fact) const;

  // BoringSSL's callbacks.
  static ssl_select_cert_result_t select_callback(const SSL_CLIENT_HELLO *hello);
  static int credentials_callback(SSL *ssl, void *);
  static ssl_verify_result_t verify_callback(SSL *ssl, uint8_t *alert);
  static int session_callback(SSL *ssl, SSL_SESSION *session);  // client
  static Handshake &of(const SSL *ssl);

 private:
  ssl_private_key_result_t begin_private_key(Operation::Kind kind, uint16_t scheme, const uint8_t *in,
                                             size_t size) override;
  ssl_private_key_result_t complete_private_key(uint8_t *out, size_t *out_size, size_t room) override;
  ssl_select_cert_result_t select(const SSL_CLIENT_HELLO *hello);
  Progress prepare_client();
  bool take_identity_answer();
  std::string no_identity() const;
  bool use(IdentityPtr identity, Credential::Match match);
  Duration wait_left() const;
  bool await(size_t watch);
  std::shared_ptr<Operation> make_operation(Operation::Kind kind) const;
  bool submit(const OperationPtr &operation);
  void note_failure();
  std::string peer_fact(Fact fact) const;
  std::string operation_fact(Fact fact) const;
  std::string forwarded_client_cert() const;

  const TlsContext &context_;
  Observer &observer_;
  bssl::UniquePtr<SSL> ssl_;
  std::shared_ptr<Waker> waker_;
  OperationPtr operation_;  // in flight, or finished and not yet used
  OperationPtr signed_;     // the last one that gave an answer
  IdentityPtr identity_;
  // Captured before verification, so that later changes invalidate the session.
  TlsContext::SessionContext session_context_{};
  Credential::Match match_ = Credential::Match::None;
  std::vector<bool> given_up_;  // watches that failed in this handshake
  Duration waited_{};           // total time spent waiting for identities
  std::string wait_failure_;
  std::string server_name_;     // lower case; empty when it is malformed
  std::string malformed_name_;  // as it was sent, in lower case
  bool credentials_added_ = false;
  std::string failure_;
};

}  // namespace tls_offload

#endif
