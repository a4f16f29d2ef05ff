#include "envoy_ext/module/client/private_key.h"

namespace tls_offload {

namespace {

int ex_index() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

PrivateKeyUser &user_of(const SSL *ssl) {
  return *static_cast<PrivateKeyUser *>(SSL_get_ex_data(ssl, ex_index()));
}

}  // namespace

void set_private_key_user(SSL *ssl, PrivateKeyUser *user) {
  SSL_set_ex_data(ssl, ex_index(), user);
}

const SSL_PRIVATE_KEY_METHOD remote_private_key = {
    .sign = [](SSL *ssl, uint8_t *, size_t *, size_t, uint16_t scheme, const uint8_t *in,
               size_t size) { return user_of(ssl).begin_private_key(Operation::Kind::Sign, scheme, in, size); },
    .decrypt = [](SSL *ssl, uint8_t *, size_t *, size_t, const uint8_t *in,
                  size_t size) { return user_of(ssl).begin_private_key(Operation::Kind::Decrypt, 0, in, size); },
    .complete = [](SSL *ssl, uint8_t *out, size_t *out_size,
                   size_t room) { return user_of(ssl).complete_private_key(out, out_size, room); },
};

}  // namespace tls_offload
