/* X25519 (RFC 7748) on AVX-512 IFMA: the key agreement of a TLS handshake. It needs no other part of the kernels, no
 * workspace and no key handle. BoringSSL has the same functions for hosts that cannot run it.
 */
#ifndef KERNELS_X25519_H
#define KERNELS_X25519_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { X25519_LANES = 8, X25519_BYTES = 32 };

/* Whether this host, and the compiler that built this, support AVX-512 IFMA. The other functions may only be called
 * then. */
bool x25519_ifma_usable(void);

/* The public keys of eight private keys. Returns a mask with a bit for each lane that passed its check; public keys of
 * other lanes must not be used. */
uint8_t x25519_public_ifma8(uint8_t public_keys[X25519_LANES][X25519_BYTES],
                            const uint8_t private_keys[X25519_LANES][X25519_BYTES]);

/* Computes the shared secret of a private key and the peer's point. False when it is all zeros: the point has a low
 * order. */
bool x25519_shared_ifma4(uint8_t shared[X25519_BYTES], const uint8_t private_key[X25519_BYTES],
                         const uint8_t point[X25519_BYTES]);

#ifdef __cplusplus
}
#endif

#endif
