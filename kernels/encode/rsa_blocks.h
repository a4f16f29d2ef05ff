/* Encoded blocks of RSA: as long as the modulus, big-endian, less than the modulus. */
#ifndef KERNELS_ENCODE_RSA_BLOCKS_H
#define KERNELS_ENCODE_RSA_BLOCKS_H

#include <stdbool.h>

#include "kernels/encode/hash.h"
#include "kernels/kernels.h"

/* EMSA-PKCS1-v1_5 (RFC 8017, 9.2): 00 01 FF .. FF 00 DigestInfo. `size` is at least 256. */
void pkcs1_v15_encode(hash_algorithm hash, const uint8_t *digest, uint8_t *block, size_t size);

/* EMSA-PSS (RFC 8017, 9.1.1) with MGF1 of the same hash and a salt as long as the hash, for a modulus of exactly
 * 8 * size bits, as TLS 1.3 requires. The caller passes the salt: fresh random bytes. */
void pss_encode(hash_algorithm hash, const uint8_t *digest, const uint8_t *salt, uint8_t *block, size_t size);

enum { PREMASTER_SIZE = 48 };

/* Extracts the plaintext of a TLS RSA key exchange from a decrypted block (RFC 8017, 7.2.2, and RFC 5246, 7.4.7.1).
 *
 * If the padding is wrong or the plaintext is not 48 bytes, the result is a pseudo-random value that depends only on
 * the key and the ciphertext (implicit rejection), so that no caller learns which case it was: not from a status, not
 * from timing, and not by asking twice. Constant time in `block` and in the key. */
void pkcs1_unpad_premaster(const kernel_key *key, const uint8_t *ciphertext, const uint8_t *block, size_t size,
                           uint8_t premaster[PREMASTER_SIZE]);

#endif
