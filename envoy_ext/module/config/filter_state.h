// The facts that a finished handshake publishes to the rest of Envoy: filter state under "tls_offload.<key>", readable
// by RBAC, access logs (%FILTER_STATE(tls_offload.peer_spiffe_id:PLAIN)%), matchers and header formatters. A fact that
// does not exist (no client certificate, no SNI) has no entry.
#ifndef TLS_OFFLOAD_FILTER_STATE_H
#define TLS_OFFLOAD_FILTER_STATE_H

#include <array>
#include <string_view>

namespace tls_offload {

inline constexpr std::string_view kFilterStatePrefix = "tls_offload.";

// Documented in docs/reference/filter-state.md; the order is that of Fact.
inline constexpr std::array<std::string_view, 16> kPublishable = {
    "peer_spiffe_id",   // the URI of a verified client certificate
    "peer_sha256",      // of the client's leaf certificate, hex
    "peer_serial",      // of the client's leaf certificate, hex
    "xfcc",             // these and our own id as one element of x-forwarded-client-cert
    "identity",         // the identity whose certificate was presented
    "local_spiffe_id",  // that certificate's SPIFFE id
    "server_name",      // SNI
    "tls_version",      // "TLSv1.3"
    "cipher",           // "TLS_AES_128_GCM_SHA256"
    "group",            // "X25519"
    "alpn",             // "h2"
    "resumed",          // "true", "false"
    "key_type",         // "rsa", "ec", "ed25519"; not when resumed
    "backend",          // "software", "ifma8": what computed our signature
    "batch_size",       // operations that ran together with ours, ours included
    "operation_us",     // from requesting the signature to its answer
};

enum class Fact : size_t {
  PeerSpiffeId,
  PeerSha256,
  PeerSerial,
  Xfcc,
  Identity,
  LocalSpiffeId,
  ServerName,
  TlsVersion,
  Cipher,
  Group,
  Alpn,
  Resumed,
  KeyType,
  Backend,
  BatchSize,
  OperationUs,
};

}  // namespace tls_offload

#endif
