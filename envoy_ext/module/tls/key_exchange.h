// X25519 of the handshakes: on AVX-512 IFMA where the host has it, else BoringSSL's.
//
// BoringSSL has no hook for its key shares, so the linker sends its calls of X25519 and X25519_keypair here (--wrap),
// also those of the hybrid groups. The shared secret takes a third of BoringSSL's time. Key pairs are made eight at a
// time, which costs less than one of BoringSSL's, and kept for the thread's next handshakes: each is used once, wiped
// when it is handed out, and none is used that is older than kPairLifetime or from before a fork. So what a look into
// Envoy's memory can show beforehand is bounded by that time. TLS_OFFLOAD_KEY_EXCHANGE=boringssl in Envoy's environment
// turns it off.
#pragma once

#include <cstdint>

namespace tls_offload {

constexpr int64_t kPairLifetimeSeconds = 10;

// "ifma8" or "boringssl", for the log.
const char *key_exchange_backend();

}  // namespace tls_offload
