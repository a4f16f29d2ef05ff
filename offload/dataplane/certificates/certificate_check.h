/* Whether the Envoy module can load these certificates: checked with the module's own library, BoringSSL, and with the
 * same calls (envoy_ext/module: client/identity.cc, peer/peer.cc), before anything that works is replaced. The daemon's
 * other parser is more lenient in places: for example, it accepts explicit curve parameters. */
#ifndef OFFLOAD_CERTIFICATE_CHECK_H
#define OFFLOAD_CERTIFICATE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CERTIFICATE_ERROR_MAX = 256 };

typedef struct certificate_der {
  const uint8_t *data;
  size_t size;
} certificate_der;

/* Checks a chain, leaf first. False with the number of the certificate (from 1) and the reason in `error`. */
bool certificate_check_chain(const certificate_der *chain, size_t count, char error[CERTIFICATE_ERROR_MAX]);

/* Checks one certificate of a trust bundle. False with the reason in `error`. */
bool certificate_check(certificate_der certificate, char error[CERTIFICATE_ERROR_MAX]);

#ifdef __cplusplus
}
#endif
#endif
