// One identity as the daemon describes it, ready for BoringSSL: credentials whose private keys stay in the daemon, and
// trust stores. Immutable once made; a rotation makes a new one, and handshakes in flight keep the one they began with.
#ifndef TLS_OFFLOAD_IDENTITY_H
#define TLS_OFFLOAD_IDENTITY_H

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "envoy_ext/module/client/operation.h"

namespace tls_offload {

struct Credential {
  bssl::UniquePtr<SSL_CREDENTIAL> credential;
  KeyId key_id{};
  int key_type = 0;  // EVP_PKEY_RSA, EVP_PKEY_EC, EVP_PKEY_ED25519
  bool tls12 = false;
  int64_t not_after = 0;
  std::vector<std::string> dns_names;  // lower case
  std::string alternative_names;       // DER of the leaf's extension
  std::string spiffe_id;               // the leaf's; empty when it has none

  enum class Match { None, Wildcard, Exact };
  Match match(std::string_view server_name) const;  // lower case, no trailing dot
};

struct TrustBundle {
  std::string trust_domain;  // empty: not limited to a trust domain
  std::vector<bssl::UniquePtr<X509>> authorities;
};

struct Identity {
  // SHA-256 of the subject alternative names of all leaf certificates: unchanged by a renewal, but different when the
  // identity of that name was replaced by another one.
  using NamesDigest = std::array<uint8_t, 32>;

  std::string name;
  NamesDigest names{};
  uint64_t version = 0;
  std::vector<std::unique_ptr<Credential>>
      credentials;  // elliptic curves first, RSA last: the cheapest that the client supports is used
  std::vector<TrustBundle> trust_bundles;
  std::array<uint8_t, 32> bundles_digest{};  // SHA-256 of all of them

  bool any_tls12() const;
  // The SPIFFE id of the first credential that has one; empty when none has.
  const std::string &spiffe_id() const;

  // Decodes an Identity message; null with the reason in `error`.
  static std::shared_ptr<const Identity> decode(wire_view message, std::string &error);
};

using IdentityPtr = std::shared_ptr<const Identity>;

// The current state of one identity at one daemon. The key client's thread writes it, all workers read it.
class IdentityWatch {
 public:
  explicit IdentityWatch(std::string name) : name_(std::move(name)) {}
  const std::string &name() const { return name_; }
  IdentityPtr current() const {
    std::lock_guard lock(mutex_);
    return current_;
  }
  void replace(IdentityPtr identity) {
    std::lock_guard lock(mutex_);
    current_ = std::move(identity);
    refused_ = false;
  }
  // The daemon has withdrawn the identity. Handshakes in flight continue with the credentials that they hold; new ones
  // must not begin with them, because the daemon no longer has their keys.
  void refuse() {
    std::lock_guard lock(mutex_);
    refused_ = true;
  }
  void drop_refused() {
    std::lock_guard lock(mutex_);
    if (refused_) current_ = nullptr;
  }

 private:
  const std::string name_;
  mutable std::mutex mutex_;
  IdentityPtr current_;
  bool refused_ = false;
};

// Returns the Credential of an SSL_CREDENTIAL made here.
const Credential *credential_of(const SSL_CREDENTIAL *credential);

}  // namespace tls_offload

#endif
