#include "envoy_ext/module/tls/tls_context.h"

#include <openssl/err.h>
#include <openssl/sha.h>

#include <algorithm>

#include "envoy_ext/module/tls/handshake.h"
#include "envoy_ext/module/tls/session_tickets.h"

namespace tls_offload {
namespace {

std::string joined(const std::vector<std::string> &names) {
  std::string result;
  for (const std::string &name : names) result += (result.empty() ? "" : ":") + name;
  return result;
}

// Our preference order decides, as in stock Envoy; without a common protocol there is no ALPN, rather than a failed
// handshake.
int select_alpn(SSL *, const uint8_t **out, uint8_t *out_size, const uint8_t *in, unsigned in_size, void *ours) {
  const auto &list = *static_cast<const std::vector<uint8_t> *>(ours);
  uint8_t *chosen;
  int found = SSL_select_next_proto(&chosen, out_size, list.data(), static_cast<unsigned>(list.size()), in, in_size);
  if (found != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_NOACK;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

std::unique_ptr<TlsContext> TlsContext::create(SocketConfig config, bool connect, std::string &error) {
  std::unique_ptr<TlsContext> context(new TlsContext(std::move(config)));
  if (connect) context->client_ = KeyClient::of(context->config_.daemon_socket);
  if (!context->configure(error)) return nullptr;
  if (connect) {
    for (const std::string &name : context->config_.identities) {
      context->watches_.push_back(context->client_->watch(name));
    }
  }
  return context;
}

bool TlsContext::configure(std::string &error) {
  context_.reset(SSL_CTX_new(TLS_method()));
  if (!trust_.load(config_, client_ != nullptr ? &client_->stats() : nullptr, error) || !configure_protocol(error))
    return false;
  SSL_CTX_set_cert_cb(context_.get(), Handshake::credentials_callback, nullptr);
  if (is_client()) return configure_client(error);
  configure_server();
  return true;
}

bool TlsContext::configure_protocol(std::string &error) {
  SSL_CTX *context = context_.get();
  for (const std::string &name : config_.alpn) {
    alpn_.push_back(static_cast<uint8_t>(name.size()));
    alpn_.insert(alpn_.end(), name.begin(), name.end());
  }
  if (!SSL_CTX_set_min_proto_version(context, config_.tls_minimum) ||
      !SSL_CTX_set_max_proto_version(context, config_.tls_maximum) ||
      !SSL_CTX_set_strict_cipher_list(context, joined(config_.cipher_suites).c_str()) ||
      !SSL_CTX_set1_groups_list(context, joined(config_.groups).c_str())) {
    ERR_clear_error();
    error = "BoringSSL rejects the versions, cipher suites or groups";
    return false;
  }
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  auto lifetime = static_cast<uint32_t>(config_.session_lifetime.count());
  SSL_CTX_set_timeout(context, lifetime);
  SSL_CTX_set_session_psk_dhe_timeout(context, lifetime);
  if (!config_.session_tickets) SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
  return true;
}

void TlsContext::configure_server() {
  SSL_CTX *context = context_.get();
  SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);
  // Sessions live in tickets only; a cache in memory would be per process and grow.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  if (config_.session_tickets) {
    use_ticket_keys(context, config_.session_lifetime);
    // Every resumed connection brings a new ticket, so one at a time is enough; BoringSSL's default is two.
    SSL_CTX_set_num_tickets(context, 1);
  }
  if (!alpn_.empty()) SSL_CTX_set_alpn_select_cb(context, select_alpn, &alpn_);
  if (config_.client_certificate != ClientCertificate::Off) {
    int mode = SSL_VERIFY_PEER;
    if (config_.client_certificate == ClientCertificate::Required) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_custom_verify(context, mode, Handshake::verify_callback);
    if (trust_.names() != nullptr) SSL_CTX_set_client_CA_list(context, SSL_dup_CA_list(trust_.names()));
  }
  SSL_CTX_set_select_certificate_cb(context, Handshake::select_callback);
}

bool TlsContext::configure_client(std::string &error) {
  SSL_CTX *context = context_.get();
  SSL_CTX_set_custom_verify(context, SSL_VERIFY_PEER, Handshake::verify_callback);
  bool keeps = config_.session_tickets && config_.sessions_kept > 0;
  SSL_CTX_set_session_cache_mode(context,
                                 keeps ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL : SSL_SESS_CACHE_OFF);
  if (keeps) SSL_CTX_sess_set_new_cb(context, Handshake::session_callback);
  if (alpn_.empty() || SSL_CTX_set_alpn_protos(context, alpn_.data(), alpn_.size()) == 0) return true;
  ERR_clear_error();
  error = "alpn: BoringSSL rejects the list";
  return false;
}

TlsContext::SessionContext TlsContext::session_context(const Identity &identity) const {
  // Each part is length-prefixed, so that no two different lists give the same bytes.
  std::string text = "tls_offload session 1";
  auto add = [&](const std::string &part) { text += std::to_string(part.size()) + ":" + part; };
  add(config_.daemon_socket);
  add(identity.name);
  add(std::string(identity.names.begin(), identity.names.end()));
  add(std::to_string(static_cast<int>(config_.client_certificate)));
  if (is_client() || config_.client_certificate != ClientCertificate::Off) add(trust_.fingerprint(identity));
  SessionContext digest;
  SHA256(reinterpret_cast<const uint8_t *>(text.data()), text.size(), digest.data());
  return digest;
}

Selection select_identity(const std::vector<IdentityPtr> &identities, std::string_view server_name) {
  Selection best;
  if (server_name.empty()) return best;
  for (size_t i = 0; i < identities.size(); i++) {
    if (identities[i] == nullptr) continue;
    for (const auto &credential : identities[i]->credentials) {
      auto match = credential->match(server_name);
      if (match > best.match) best = {i, match};
    }
  }
  return best;
}

}  // namespace tls_offload
