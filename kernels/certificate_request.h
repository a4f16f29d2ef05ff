/* PKCS#10 certificate requests (RFC 2986), by which an issuer certifies keys that were generated on the node.
 *
 * The request is made and signed here, next to the key, because no caller may have one signed through a socket: the
 * usage of keys (offload/dataplane/access/usage.h) forbids exactly that.
 */
#ifndef KERNELS_CERTIFICATE_REQUEST_H
#define KERNELS_CERTIFICATE_REQUEST_H

#include "key.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The subject of the certificate: names for the extension subjectAltName, in this order. There must be at least one in
 * all. */
typedef struct certificate_request_names {
  const char *const *uris; /* SPIFFE ids; ASCII */
  size_t uri_count;
  const char *const *dns_names; /* ASCII */
  size_t dns_name_count;
} certificate_request_names;

/* Makes a DER request with an empty subject, signed by the key: RSA with PKCS#1 v1.5 and SHA-256, P-256 with SHA-256,
 * P-384 with SHA-384, Ed25519. `*request` is freed by certificate_request_free. False with the reason in `error`. */
bool certificate_request_make(const kernel_key *key, const certificate_request_names *names, uint8_t **request,
                              size_t *size, char error[KERNEL_ERROR_MAX]);
void certificate_request_free(uint8_t *request);

#ifdef __cplusplus
}
#endif
#endif
