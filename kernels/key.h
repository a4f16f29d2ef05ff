/* Private keys: parsed natively from PEM or DER, held in secret memory (secret_memory.h), wiped on release.
 *
 * Accepted: PKCS#8 ("PRIVATE KEY"), PKCS#1 ("RSA PRIVATE KEY"), SEC1 ("EC PRIVATE KEY"); not encrypted.
 * RSA of 2048, 3072 or 4096 bits with two primes of half the size and an odd public exponent; P-256; P-384; Ed25519.
 * Every key is checked for consistency (RSA: p q = n, exponents; EC: public point is d G) before it is accepted.
 */
#ifndef KERNELS_KEY_H
#define KERNELS_KEY_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KERNEL_KEY_ID_SIZE = 32, KERNEL_ERROR_MAX = 256 };

/* NULL on failure, with the reason (never key material) in `error`. The input buffer is not kept; the caller has to
 * wipe it. */
kernel_key *kernel_key_parse(const uint8_t *text, size_t size, char error[KERNEL_ERROR_MAX]);

/* Reads the file straight into secret memory and parses it; no other copy is made. Rejects anything but a regular file
 * of at most 64 KiB. */
kernel_key *kernel_key_read(const char *path, char error[KERNEL_ERROR_MAX]);

/* A fresh key from the system's randomness; for identities generated on the node. */
kernel_key *kernel_key_generate(kernel_algorithm algorithm, char error[KERNEL_ERROR_MAX]);

kernel_key *kernel_key_retain(const kernel_key *key);
void kernel_key_release(kernel_key *key); /* wipes it with the last reference; NULL is allowed */

kernel_algorithm kernel_key_algorithm(const kernel_key *key);
/* SHA-256 of the DER SubjectPublicKeyInfo. */
const uint8_t *kernel_key_id(const kernel_key *key);
/* DER SubjectPublicKeyInfo: public. */
const uint8_t *kernel_key_public(const kernel_key *key, size_t *size);

#ifdef __cplusplus
}
#endif
#endif
