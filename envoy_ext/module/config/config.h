// The configuration of the transport socket and of the companion filter: JSON (a protobuf Struct in Envoy's
// configuration), read strictly. docs/reference/module-configuration.md is the reference for users.
#ifndef TLS_OFFLOAD_CONFIG_H
#define TLS_OFFLOAD_CONFIG_H

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envoy_ext/module/spiffe/spiffe_match.h"

namespace tls_offload {

enum class Direction { Downstream, Upstream };
enum class ClientCertificate { Off, Optional, Required };
enum class UnknownServerName { First, Reject };

struct SocketConfig {
  Direction direction = Direction::Downstream;
  std::string daemon_socket;  // required; absolute path
  // Required. Downstream: the first serves clients that name no known server. Upstream: our own identity.
  std::vector<std::string> identities;

  std::vector<std::string> alpn;
  uint16_t tls_minimum;  // TLS1_2_VERSION or TLS1_3_VERSION
  uint16_t tls_maximum;
  std::vector<std::string> cipher_suites;  // TLS 1.2 only; those of TLS 1.3 are fixed
  std::vector<std::string> groups;

  // Enough for a batch of the slowest class behind another one; clients wait longer than that.
  std::chrono::milliseconds operation_timeout{2000};
  // How long a handshake waits for an unreachable daemon or for the first answer about its identity. A restart takes
  // less; waiting longer would only pile up connections.
  std::chrono::milliseconds handshake_wait{1000};

  bool session_tickets = true;
  std::chrono::seconds session_lifetime{7200};

  std::string trusted_ca_file;               // empty: the trust bundles of the identity
  std::vector<std::string> trust_domains;    // which of them; empty: all
  std::string crl_file;                      // revocation lists; empty: none are checked
  std::chrono::seconds clock_skew{10};       // how far outside its validity a certificate may be: clocks differ
  std::vector<SpiffeMatch> peer_spiffe_ids;  // which verified peers to accept; downstream, empty accepts all

  // Downstream only.
  UnknownServerName unknown_server_name = UnknownServerName::First;
  ClientCertificate client_certificate = ClientCertificate::Off;

  // Upstream only.
  std::string server_name;                  // SNI; empty: none is sent
  std::vector<std::string> peer_dns_names;  // as an alternative to peer_spiffe_ids
  size_t sessions_kept = 16;                // a few for each worker; TLS 1.3 uses each only once
};

struct FilterSettings {
  std::string daemon_socket;         // required: the daemon whose statistics are shown here
  std::vector<std::string> publish;  // filter state keys, without their prefix
};

// Empty, with the reason in `error` (field, value, what is allowed), when `json` is not a valid configuration.
std::optional<SocketConfig> parse_socket_config(std::string_view json, Direction direction, std::string &error);
std::optional<FilterSettings> parse_filter_settings(std::string_view json, std::string &error);

}  // namespace tls_offload

#endif
