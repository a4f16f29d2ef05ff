#include "envoy_ext/module/tls/session_tickets.h"

#include <openssl/cipher.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/rand.h>

#include <algorithm>

namespace tls_offload {
namespace {

// The contract of SSL_CTX_set_tlsext_ticket_key_cb: 1 use it, 2 use it and renew the ticket, 0 no such key, -1 failed.
int ticket_key(SSL *, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *mac, int sealing) {
  TicketKeys &keys = TicketKeys::process({});
  TicketKeys::Key key;
  bool renew = false;
  if (sealing != 0) {
    key = keys.sealing(Clock::now());
    std::copy(key.name.begin(), key.name.end(), name);
    RAND_bytes(iv, EVP_CIPHER_iv_length(EVP_aes_256_cbc()));
  } else if (!keys.opening(name, Clock::now(), key, renew)) {
    return 0;
  }
  bool set = EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), nullptr, key.cipher_key.data(), iv, sealing) &&
             HMAC_Init_ex(mac, key.mac_key.data(), key.mac_key.size(), EVP_sha256(), nullptr);
  OPENSSL_cleanse(&key, sizeof key);
  return !set ? -1 : renew ? 2 : 1;
}

}  // namespace

TicketKeys::~TicketKeys() {
  for (Key &key : keys_) OPENSSL_cleanse(&key, sizeof key);
}

void TicketKeys::rotate(Time now) {
  if (!keys_.empty() && now - keys_.front().made < period_) return;
  Key key;
  RAND_bytes(key.name.data(), key.name.size());
  RAND_bytes(key.cipher_key.data(), key.cipher_key.size());
  RAND_bytes(key.mac_key.data(), key.mac_key.size());
  key.made = now;
  keys_.insert(keys_.begin(), key);
  OPENSSL_cleanse(&key, sizeof key);
  while (keys_.size() > 2) {
    OPENSSL_cleanse(&keys_.back(), sizeof keys_.back());
    keys_.pop_back();
  }
}

TicketKeys::Key TicketKeys::sealing(Time now) {
  std::lock_guard lock(mutex_);
  rotate(now);
  return keys_.front();
}

bool TicketKeys::opening(const uint8_t *name, Time now, Key &key, bool &renew) {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < keys_.size(); i++) {
    if (!std::equal(keys_[i].name.begin(), keys_[i].name.end(), name)) continue;
    if (now - keys_[i].made >= 2 * period_) return false;
    key = keys_[i];
    renew = i > 0 || now - keys_[i].made >= period_;
    return true;
  }
  return false;
}

TicketKeys &TicketKeys::process(Duration period) {
  static auto *keys = new TicketKeys(std::chrono::seconds(1));  // never destroyed: workers may outlive it
  if (period > Duration::zero()) {
    std::lock_guard lock(keys->mutex_);
    keys->period_ = std::max(keys->period_, period);
  }
  return *keys;
}

void use_ticket_keys(SSL_CTX *context, Duration lifetime) {
  TicketKeys::process(lifetime);
  SSL_CTX_set_tlsext_ticket_key_cb(context, ticket_key);
}

}  // namespace tls_offload
