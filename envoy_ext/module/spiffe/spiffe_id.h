// SPIFFE ids and the names of X.509-SVIDs: a strict reading of the specifications "SPIFFE-ID" and "X509-SVID".
#ifndef TLS_OFFLOAD_SPIFFE_ID_H
#define TLS_OFFLOAD_SPIFFE_ID_H

#include <openssl/x509.h>

#include <string>
#include <string_view>

namespace tls_offload {

// Empty when `text` is the id of a workload, otherwise what is wrong with it.
//
//   spiffe://<trust domain>/<segment>/...   trust domain: a-z 0-9 . - _, at most 255 bytes
//                                           segments: a-z A-Z 0-9 . - _, none empty, none "." or ".."
//   at most 2048 bytes; no port, user, query, fragment or percent-encoding; a workload's has a path
std::string_view spiffe_id_fault(std::string_view text);

// The trust domain of a valid id.
std::string_view trust_domain_of(std::string_view id);

// The SPIFFE id in a certificate's names.
struct SvidNames {
  std::string id;     // its SPIFFE id; empty when it has none and is no SVID
  std::string fault;  // not empty: it has an id, or names like one, in a forbidden form
};
SvidNames svid_names(const X509 *certificate);

// A leaf that is an SVID must not sign others, and must be good for signatures. Empty, or what is wrong.
std::string_view svid_usage_fault(X509 *leaf);

// The CAs above an SVID may name a trust domain, and nothing else as a SPIFFE id. Empty, or what is wrong.
std::string svid_issuer_fault(const X509 *authority);

}  // namespace tls_offload

#endif
