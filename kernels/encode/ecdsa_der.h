/* ECDSA-Sig-Value (RFC 3279, 2.2.3): SEQUENCE of two INTEGERs. */
#ifndef KERNELS_ENCODE_ECDSA_DER_H
#define KERNELS_ENCODE_ECDSA_DER_H

#include <stddef.h>
#include <stdint.h>

enum { ECDSA_DER_MAX = 104 }; /* P-384: 2 + 2 * (2 + 1 + 48) */

/* `pair` is r then s, `half` bytes each (32 or 48), big-endian; returns the size written. Signatures are public. */
size_t ecdsa_der_encode(const uint8_t *pair, size_t half, uint8_t der[ECDSA_DER_MAX]);

#endif
