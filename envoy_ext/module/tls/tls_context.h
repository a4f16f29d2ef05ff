// The state that all connections of one transport-socket configuration share: the SSL_CTX, the key client, and the
// identities. Credentials are not in the SSL_CTX: each handshake takes them from the identity's current version, so a
// rotation needs no new context, and tickets stay valid across it.
#ifndef TLS_OFFLOAD_TLS_CONTEXT_H
#define TLS_OFFLOAD_TLS_CONTEXT_H

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

#include "envoy_ext/module/client/identity.h"
#include "envoy_ext/module/client/key_client.h"
#include "envoy_ext/module/config/config.h"
#include "envoy_ext/module/peer/peer.h"
#include "envoy_ext/module/tls/client_sessions.h"

namespace tls_offload {

class TlsContext {
 public:
  // Called on the main thread. Null with the reason in `error`. With `connect` false (Envoy only validates) there is no
  // client and no thread.
  static std::unique_ptr<TlsContext> create(SocketConfig config, bool connect, std::string &error);

  const SocketConfig &config() const { return config_; }
  bool is_client() const { return config_.direction == Direction::Upstream; }
  KeyClient &client() const { return *client_; }
  const Trust &trust() const { return trust_; }
  bssl::UniquePtr<SSL> new_ssl() const { return bssl::UniquePtr<SSL>(SSL_new(context_.get())); }
  const std::vector<std::shared_ptr<IdentityWatch>> &watches() const { return watches_; }

  ClientSessions &sessions() const { return sessions_; }

  // The session id context: sessions resume only when it is the same. The peer is not verified again on resumption, so
  // it covers everything that the verification rests on except time, which bounds the session's lifetime (Handshake).
  using SessionContext = ClientSessions::Context;
  SessionContext session_context(const Identity &identity) const;

 private:
  explicit TlsContext(SocketConfig config) : config_(std::move(config)), sessions_(config_.sessions_kept) {}
  bool configure(std::string &error);
  bool configure_protocol(std::string &error);
  void configure_server();
  bool configure_client(std::string &error);

  const SocketConfig config_;
  mutable ClientSessions sessions_;  // upstream
  Trust trust_;
  std::vector<uint8_t> alpn_;  // as on the wire
  bssl::UniquePtr<SSL_CTX> context_;
  std::shared_ptr<KeyClient> client_;
  std::vector<std::shared_ptr<IdentityWatch>> watches_;  // in the order of the configuration
};

// Selects the identity for a client's server name (lower case; empty when it sent none): the first with an exactly
// matching certificate, otherwise the first with a matching wildcard, otherwise none. Null entries are identities not
// known yet.
struct Selection {
  size_t index = 0;
  Credential::Match match = Credential::Match::None;
};
Selection select_identity(const std::vector<IdentityPtr> &identities, std::string_view server_name);

}  // namespace tls_offload

#endif
