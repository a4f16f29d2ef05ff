/* Parses the DER of a private key into the numbers that the backends need. */
#ifndef KERNELS_KEY_PARSE_H
#define KERNELS_KEY_PARSE_H

#include <openssl/evp.h>

#include "kernels/key_internal.h"
#include "kernels/pem.h"

/* NULL on failure, with the reason in `error`. */
EVP_PKEY *private_key_from_der(const uint8_t *der, size_t size, private_key_form form, char error[KERNEL_ERROR_MAX]);
/* Parses DER that came without PEM, and detects its form. */
EVP_PKEY *private_key_from_bare_der(const uint8_t *der, size_t size, char error[KERNEL_ERROR_MAX]);

/* Fills in algorithm, id, spki and numbers of a zeroed key. False, with the reason in `error`, when the key is
 * rejected. */
bool key_fill(kernel_key *key, const EVP_PKEY *pkey, char error[KERNEL_ERROR_MAX]);

#endif
