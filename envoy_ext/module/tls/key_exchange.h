// X25519 for handshakes: on AVX-512 IFMA if the host has it, otherwise BoringSSL's.
//
// BoringSSL has no hook for its key shares, so the linker redirects its calls of X25519 and X25519_keypair here
// (--wrap), including those of the hybrid groups. The shared secret takes a third of BoringSSL's time. Key pairs are
// made eight at a time, which costs less than one of BoringSSL's, and kept for the thread's next handshakes: each is
// used once and wiped when it is handed out, and pairs that are older than kPairLifetime or from before a fork are
// never used. So that time bounds how long in advance a reader of Envoy's memory could learn a key.
// TLS_OFFLOAD_KEY_EXCHANGE=boringssl in Envoy's environment turns it off.
#pragma once

#include <cstdint>

namespace tls_offload {

constexpr int64_t kPairLifetimeSeconds = 10;

// "ifma8" or "boringssl", for the log.
const char *key_exchange_backend();

}  // namespace tls_offload
