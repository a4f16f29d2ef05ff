// The facts of a finished handshake (filter_state.h).
#include <openssl/bn.h>
#include <openssl/digest.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "envoy_ext/module/peer/peer.h"
#include "envoy_ext/module/spiffe/spiffe_id.h"
#include "envoy_ext/module/tls/handshake.h"

namespace tls_offload {
namespace {

const char *key_type_name(int type) {
  switch (type) {
    case EVP_PKEY_RSA: return "rsa";
    case EVP_PKEY_EC: return "ec";
    case EVP_PKEY_ED25519: return "ed25519";
    default: return "";
  }
}

const char *or_empty(const char *text) {
  return text != nullptr ? text : "";
}

}  // namespace

std::string Handshake::fact(Fact fact) const {
  SSL *ssl = ssl_.get();
  switch (fact) {
    case Fact::PeerSpiffeId:
    case Fact::PeerSha256:
    case Fact::PeerSerial: return peer_fact(fact);
    case Fact::Xfcc: return forwarded_client_cert();
    case Fact::LocalSpiffeId: return identity_ != nullptr ? identity_->spiffe_id() : "";
    case Fact::Identity: return identity_ != nullptr ? identity_->name : "";
    case Fact::ServerName: return server_name_;
    case Fact::TlsVersion: return SSL_get_version(ssl);
    case Fact::Cipher: return or_empty(SSL_CIPHER_standard_name(SSL_get_current_cipher(ssl)));
    case Fact::Group: return or_empty(SSL_get_group_name(SSL_get_group_id(ssl)));
    case Fact::Alpn: {
      const uint8_t *name;
      unsigned size;
      SSL_get0_alpn_selected(ssl, &name, &size);
      return std::string(reinterpret_cast<const char *>(name), size);
    }
    case Fact::Resumed: return SSL_session_reused(ssl) ? "true" : "false";
    case Fact::KeyType:
    case Fact::Backend:
    case Fact::BatchSize:
    case Fact::OperationUs: return operation_fact(fact);
  }
  return {};
}

std::string Handshake::peer_fact(Fact fact) const {
  // A certificate is in the session only if it was verified, in this handshake or in the one that is resumed.
  STACK_OF(X509) *chain = SSL_get_peer_full_cert_chain(ssl_.get());
  if (chain == nullptr || sk_X509_num(chain) == 0) return {};
  X509 *leaf = sk_X509_value(chain, 0);
  if (fact == Fact::PeerSpiffeId) return svid_names(leaf).id;
  if (fact == Fact::PeerSha256) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    return X509_digest(leaf, EVP_sha256(), digest, &size) ? hex(digest, size) : std::string();
  }
  bssl::UniquePtr<BIGNUM> serial(ASN1_INTEGER_to_BN(X509_get0_serialNumber(leaf), nullptr));
  bssl::UniquePtr<char> text(serial ? BN_bn2hex(serial.get()) : nullptr);
  return or_empty(text.get());
}

// One element of Envoy's x-forwarded-client-cert. SPIFFE ids have no character that would need quotes there.
std::string Handshake::forwarded_client_cert() const {
  std::string digest = peer_fact(Fact::PeerSha256);
  if (digest.empty()) return {};
  std::string local = fact(Fact::LocalSpiffeId), peer = peer_fact(Fact::PeerSpiffeId);
  return (local.empty() ? "" : "By=" + local + ";") + "Hash=" + digest + (peer.empty() ? "" : ";URI=" + peer);
}

std::string Handshake::operation_fact(Fact fact) const {
  if (signed_ == nullptr) return {};
  const Answer &answer = signed_->answer();
  if (fact == Fact::BatchSize) return std::to_string(answer.batch_size);
  if (fact == Fact::OperationUs) {
    return std::to_string(std::chrono::duration_cast<std::chrono::microseconds>(signed_->elapsed()).count());
  }
  if (fact == Fact::Backend) {
    return answer.backend == WIRE_BACKEND_IFMA8 ? "ifma8" : answer.backend == WIRE_BACKEND_SOFTWARE ? "software" : "";
  }
  for (const auto &credential : identity_->credentials) {
    if (credential->key_id == signed_->key_id) return key_type_name(credential->key_type);
  }
  return {};
}

}  // namespace tls_offload
