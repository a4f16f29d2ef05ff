/* PEM (RFC 7468) of private keys, decoded without a copy outside the caller's buffer, in constant time per character.
 */
#ifndef KERNELS_PEM_H
#define KERNELS_PEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/key.h"

typedef enum private_key_form { FORM_PKCS8, FORM_PKCS1, FORM_SEC1 } private_key_form;

/* Whether the text holds a PEM block at all. */
bool pem_is_there(const uint8_t *text, size_t size);

/* The one private key in the text; other blocks (certificates, EC parameters) are skipped. `der` has room for `size`
 * bytes. False, with the reason in `error`, if there is no key, more than one, or an encrypted or malformed one. */
bool pem_private_key(const uint8_t *text, size_t size, uint8_t *der, size_t *der_size, private_key_form *form,
                     char error[KERNEL_ERROR_MAX]);

#endif
