/* Whether the Envoy module can load these certificates: judged by its own library, BoringSSL, with its own calls
 * (envoy_ext/module: client/identity.cc, peer/peer.cc), before anything that works is replaced. The daemon's other
 * parser is laxer in places: it takes explicit curve parameters, for one. */
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

/* A chain, leaf first. False with the certificate (from 1) and the reason. */
bool certificate_check_chain(const certificate_der *chain, size_t count, char error[CERTIFICATE_ERROR_MAX]);

/* One certificate, of a trust bundle. False with the reason. */
bool certificate_check(certificate_der certificate, char error[CERTIFICATE_ERROR_MAX]);

#ifdef __cplusplus
}
#endif
#endif
