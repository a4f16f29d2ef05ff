// Verification of a peer's certificate, and what is published about it.
#ifndef TLS_OFFLOAD_PEER_H
#define TLS_OFFLOAD_PEER_H

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <string>
#include <vector>

#include "identity.h"

namespace tls_offload {

// Whom to trust: the CAs of a file, or the trust bundles that came with an identity.
class Trust {
 public:
  // Empty path: bundles. False with the reason in `error`.
  bool load(const std::string &ca_file, std::vector<std::string> trust_domains, std::string &error);

  // Verifies the peer's chain for `purpose` ("ssl_client" or "ssl_server"). A certificate with a SPIFFE id is judged by
  // the bundle of its trust domain alone (and by bundles bound to no domain); others by the unbound bundles alone.
  // False with the TLS alert and the reason.
  bool verify(SSL *ssl, const Identity &identity, const char *purpose, uint8_t &alert, std::string &reason) const;

  STACK_OF(X509_NAME) * names() const { return names_.get(); }  // of the file's CAs; null for bundles

 private:
  std::vector<bssl::UniquePtr<X509>> file_;
  bssl::UniquePtr<STACK_OF(X509_NAME)> names_;
  bool from_file_ = false;
  std::vector<std::string> trust_domains_;
};

// The one URI of the certificate, when it is a SPIFFE id; empty when it has no SPIFFE id. `valid` is false when it has
// one in a form that SPIFFE forbids (more than one URI).
std::string spiffe_id(const X509 *certificate, bool &valid);

std::string hex(const uint8_t *data, size_t size);

}  // namespace tls_offload

#endif
