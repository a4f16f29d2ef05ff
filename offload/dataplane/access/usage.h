/* What a key may sign: the input must have the form of a TLS handshake signature. No I/O, no state.
 *
 * tls13     RFC 8446, 4.4.3: 64 spaces, the context string of the server or the client, a zero byte, a transcript
 *           hash of 32 or 48 bytes (the hashes of all TLS 1.3 cipher suites). Nothing else has this form; it was
 *           designed so that a TLS 1.3 signature cannot be mistaken for any other. RSA signs with PSS only, ECDSA with
 *           the hash that belongs to its curve.
 * tls12+13  also TLS 1.2:
 *           - ServerKeyExchange (RFC 8422, 5.4): client random, server random, ServerECDHParams of a named curve and a
 *             point of its size. 64 bytes of it are free, so a forger can choose more than in TLS 1.3; but text (a JWT)
 *             never has the bytes after them, and DER of this length is no useful certificate or request.
 *           - CertificateVerify of a client (RFC 5246, 7.4.8): the handshake messages so far. The check is that they
 *             fill the input exactly, begin with ClientHello and ServerHello, end with ClientKeyExchange, and have only
 *             types that occur between these. Their contents are not looked at.
 * any       no check. Only this usage accepts a digest in place of the input.
 */
#ifndef OFFLOAD_USAGE_H
#define OFFLOAD_USAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

typedef enum key_usage { USAGE_TLS13, USAGE_TLS12_AND_13, USAGE_ANY } key_usage;

bool usage_is_tls13_input(const uint8_t *input, size_t size);
bool usage_is_tls12_input(const uint8_t *input, size_t size);

/* Whether a key of that usage and algorithm may sign that input with that scheme, which fits the key. */
bool usage_allows(key_usage usage, uint16_t scheme, kernel_algorithm algorithm, bool prehashed, const uint8_t *input,
                  size_t size);

#endif
