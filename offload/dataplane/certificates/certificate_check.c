#include "offload/dataplane/certificates/certificate_check.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pool.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>

/* BoringSSL's reason is a constant string. The first error in its queue is the cause. */
static bool fail(char error[CERTIFICATE_ERROR_MAX], const char *what) {
  const char *reason = ERR_reason_error_string(ERR_peek_error());
  snprintf(error, CERTIFICATE_ERROR_MAX, "%s (%s)", what, reason != NULL ? reason : "no detail");
  ERR_clear_error();
  return false;
}

bool certificate_check(certificate_der certificate, char error[CERTIFICATE_ERROR_MAX]) {
  const uint8_t *at = certificate.data;
  ERR_clear_error();
  X509 *parsed = d2i_X509(NULL, &at, (long)certificate.size);
  bool good = parsed != NULL && at == certificate.data + certificate.size;
  if (!good) {
    fail(error, "cannot be parsed");
  } else if (X509_get0_pubkey(parsed) == NULL) {
    good = fail(error, "its public key cannot be used");
  }
  X509_free(parsed);
  return good;
}

/* Whether SSL_CREDENTIAL_set1_cert_chain accepts the chain; it also checks the leaf's kind of key and its key usage. */
static bool loads(const certificate_der *chain, size_t count, char error[CERTIFICATE_ERROR_MAX]) {
  SSL_CREDENTIAL *credential = SSL_CREDENTIAL_new_x509();
  CRYPTO_BUFFER **buffers = OPENSSL_calloc(count, sizeof *buffers);
  bool good = credential != NULL && buffers != NULL;
  for (size_t i = 0; good && i < count; i++) {
    buffers[i] = CRYPTO_BUFFER_new(chain[i].data, chain[i].size, NULL);
    good = buffers[i] != NULL;
  }
  good = good && SSL_CREDENTIAL_set1_cert_chain(credential, buffers, count) == 1;
  if (!good) fail(error, "the chain is not usable for TLS");
  for (size_t i = 0; buffers != NULL && i < count; i++) CRYPTO_BUFFER_free(buffers[i]);
  OPENSSL_free(buffers);
  SSL_CREDENTIAL_free(credential);
  return good;
}

bool certificate_check_chain(const certificate_der *chain, size_t count, char error[CERTIFICATE_ERROR_MAX]) {
  for (size_t i = 0; i < count; i++) {
    char reason[CERTIFICATE_ERROR_MAX];
    if (certificate_check(chain[i], reason)) continue;
    snprintf(error, CERTIFICATE_ERROR_MAX, "certificate %zu: %.*s", i + 1, CERTIFICATE_ERROR_MAX - 64, reason);
    return false;
  }
  return loads(chain, count, error);
}
