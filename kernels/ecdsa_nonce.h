/* Hedged ECDSA nonces for the vector kernels (the software backend uses BoringSSL's, which are hedged too).
 *
 *   wide = SHA-512(private key || fresh || digest || lane)           512 bits
 *   k    = (wide mod (n - 1)) + 1                                     FIPS 186-5, A.3.1 ("extra random bits")
 *
 * with `private key` and `digest` as long as the order (32 or 48 bytes), `fresh` 32 bytes from the system's generator
 * drawn once per batch, and `lane` one byte. If the generator fails or repeats, k is still a secret function of key and
 * message, as in RFC 6979; if not, equal messages get different k. The extra bits (256 for P-256, 128 for P-384) make
 * the bias at most 2^-128. Constant time.
 */
#ifndef KERNELS_ECDSA_NONCE_H
#define KERNELS_ECDSA_NONCE_H

#include "kernels/kernels.h"

/* One nonce per lane, 1 <= k < n, as 64-bit words, the least significant first. The lanes' keys are of that curve and
 * their inputs as long as the order. */
void ecdsa_nonces_p256(const kernel_lane lanes[], size_t count, uint64_t k[][4]);
void ecdsa_nonces_p384(const kernel_lane lanes[], size_t count, uint64_t k[][6]);

#ifdef TESTING_HOOKS
/* The second line above, for tests of the reduction; `wide` is big-endian. */
void ecdsa_nonce_from_wide_for_testing(kernel_algorithm algorithm, const uint8_t wide[64], uint64_t k[6]);
#endif

#endif
