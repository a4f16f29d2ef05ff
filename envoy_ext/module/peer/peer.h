// Verification of a peer's certificate, and what is published about it.
#ifndef TLS_OFFLOAD_PEER_H
#define TLS_OFFLOAD_PEER_H

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <vector>

#include "envoy_ext/module/client/identity.h"
#include "envoy_ext/module/config/config.h"
#include "envoy_ext/module/peer/revocation.h"

namespace tls_offload {

// Why a peer is rejected, as distinguished by the counters peers_rejected_* and the alerts.
enum class PeerFault : uint8_t {
  NoCertificate,
  SpiffeId,
  UnknownCa,
  Expired,  // or not valid yet
  Revoked,
  RevocationUnknown,  // its issuer has no list, or none that is valid
  Unsuitable,
  NotAccepted,
  Other,
  None,
};

// The TLS alert that is sent to the peer.
uint8_t alert_of(PeerFault fault);

struct PeerVerdict {
  PeerFault fault = PeerFault::None;
  std::string reason{};     // for the access log
  int64_t valid_until = 0;  // of a good verdict: until when it holds, in seconds since 1970
  bool good() const { return fault == PeerFault::None; }
};

// Which CAs to trust: those of a file, or the trust bundles that came with an identity; and which of their peers to
// accept.
class Trust {
 public:
  // False with the reason in `error`. `stats` may be null.
  bool load(const SocketConfig &config, ClientStats *stats, std::string &error);

  // Judges the peer's chain. A certificate with a SPIFFE id is judged only by the bundle of its trust domain (and by
  // bundles that are not limited to a domain); other certificates only by the latter.
  PeerVerdict judge(SSL *ssl, const Identity &identity) const;
  PeerVerdict judge(STACK_OF(X509) * chain, const Identity &identity) const;  // leaf first, not empty

  // Identifies what a verdict rests on, apart from the certificate and the time. A session is resumed only when it is
  // the same.
  std::string fingerprint(const Identity &identity) const;

  STACK_OF(X509_NAME) * names() const { return names_.get(); }  // names of the file's CAs; null for bundles

 private:
  bool load_authorities(const std::string &file, std::string &error);
  bool fill(X509_STORE *store, const Identity &identity, const std::string &id) const;
  std::shared_ptr<const RevocationLists> revocation() const;
  PeerVerdict verify_chain(X509_STORE *store, STACK_OF(X509) * chain, const std::string &id) const;
  PeerVerdict accept(X509 *leaf, const std::string &id, PeerVerdict good) const;

  const SocketConfig *config_ = nullptr;
  ClientStats *stats_ = nullptr;
  std::string settings_;  // the configuration's part of the fingerprint
  std::vector<bssl::UniquePtr<X509>> file_;
  bssl::UniquePtr<STACK_OF(X509_NAME)> names_;
  std::unique_ptr<Revocation> revocation_;
};

std::string hex(const uint8_t *data, size_t size);

}  // namespace tls_offload

#endif
