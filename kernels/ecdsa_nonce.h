/* Hedged ECDSA nonces for the vector kernels (the software backend uses BoringSSL's, which are hedged too).
 *
 *   wide = SHA-512(private key || fresh || digest || lane)           512 bits
 *   k    = (wide mod (n - 1)) + 1                                     FIPS 186-5, A.3.1 ("extra random bits")
 *
 * with `private key` and `digest` as long as the order (32 or 48 bytes), `fresh` 32 bytes from the system's generator
 * drawn once per batch, and `lane` one byte. If the generator fails or repeats, k is still a secret function of key and
 * message, as in RFC 6979; if not, equal messages get different k. The extra bits (256 for P-256, 128 for P-384) make
 * the bias at most 2^-128. Constant time.
 *
 * The vector kernels hash in their lanes (ecdsa_ifma8_nonce.h); the first and the last step are here.
 */
#ifndef KERNELS_ECDSA_NONCE_H
#define KERNELS_ECDSA_NONCE_H

#include "kernels/kernels.h"

enum { ECDSA_NONCE_FRESH = 32, ECDSA_NONCE_WIDE = 64 };

/* Draws the random bytes of one batch from the system's generator. */
void ecdsa_nonce_fresh(uint8_t fresh[ECDSA_NONCE_FRESH]);

/* The second line above: 1 <= k < n, as 64-bit words (4 or 6), the least significant first; `wide` is big-endian.
 * Builds with TESTING_HOOKS use the known nonce of the lane instead, if there is one (testing_hooks.h). */
void ecdsa_nonce_from_wide(kernel_algorithm algorithm, size_t lane, const uint8_t wide[ECDSA_NONCE_WIDE], uint64_t k[]);

#ifdef TESTING_HOOKS
/* Both lines with BoringSSL's hash, as the reference for the lanes. The lanes' keys must be of the curve, and their
 * inputs as long as the order. */
void ecdsa_nonces_p256(const kernel_lane lanes[], size_t count, uint64_t k[][4]);
void ecdsa_nonces_p384(const kernel_lane lanes[], size_t count, uint64_t k[][6]);
void ecdsa_nonces_reference(kernel_algorithm algorithm, const kernel_lane lanes[], size_t count,
                            const uint8_t fresh[ECDSA_NONCE_FRESH], uint64_t k[]);
void ecdsa_nonce_from_wide_for_testing(kernel_algorithm algorithm, const uint8_t wide[64], uint64_t k[6]);
#endif

#endif
