// BoringSSL's private-key method for keys that stay in the daemon. BoringSSL calls it with the connection alone, so
// whoever drives a connection (Handshake, in tls/) registers there what a call leads to.
#ifndef TLS_OFFLOAD_PRIVATE_KEY_H
#define TLS_OFFLOAD_PRIVATE_KEY_H

#include <openssl/ssl.h>

#include <cstddef>
#include <cstdint>

#include "envoy_ext/module/client/operation.h"

namespace tls_offload {

class PrivateKeyUser {
 public:
  virtual ssl_private_key_result_t begin_private_key(Operation::Kind kind, uint16_t scheme, const uint8_t *in,
                                                     size_t size) = 0;
  virtual ssl_private_key_result_t complete_private_key(uint8_t *out, size_t *out_size, size_t room) = 0;

 protected:
  ~PrivateKeyUser() = default;
};

// To be called before the handshake; `user` has to outlive it.
void set_private_key_user(SSL *ssl, PrivateKeyUser *user);

// Of every credential of an Identity.
extern const SSL_PRIVATE_KEY_METHOD remote_private_key;

}  // namespace tls_offload

#endif
