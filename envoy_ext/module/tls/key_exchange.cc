#include "envoy_ext/module/tls/key_exchange.h"

#include <openssl/curve25519.h>
#include <openssl/mem.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <time.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "kernels/x25519.h"

extern "C" {
int __real_X25519(uint8_t shared[32], const uint8_t private_key[32], const uint8_t point[32]);
void __real_X25519_keypair(uint8_t public_key[32], uint8_t private_key[32]);
int __wrap_X25519(uint8_t shared[32], const uint8_t private_key[32], const uint8_t point[32]);
void __wrap_X25519_keypair(uint8_t public_key[32], uint8_t private_key[32]);
}

namespace tls_offload {
namespace {

std::atomic<uint32_t> forks{0};

bool use_ifma() {
  static const bool usable = [] {
    const char *chosen = getenv("TLS_OFFLOAD_KEY_EXCHANGE");
    if (chosen != nullptr && strcmp(chosen, "boringssl") == 0) return false;
    // A child process must not use the pairs that its parent will use.
    return x25519_ifma_usable() && pthread_atfork(nullptr, nullptr, [] { forks++; }) == 0;
  }();
  return usable;
}

int64_t seconds_now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  return time.tv_sec;
}

// Key pairs of one thread.
class Pairs {
 public:
  ~Pairs() { OPENSSL_cleanse(private_, sizeof private_); }

  // False when the kernel's check failed in all lanes: the caller then uses BoringSSL.
  bool take(uint8_t public_key[32], uint8_t private_key[32]) {
    if (!good_ || forks != fork_ || seconds_now() - made_ >= kPairLifetimeSeconds) make();
    if (!good_) return false;
    int lane = __builtin_ctz(good_);
    good_ &= good_ - 1;
    memcpy(public_key, public_[lane], X25519_BYTES);
    memcpy(private_key, private_[lane], X25519_BYTES);
    OPENSSL_cleanse(private_[lane], X25519_BYTES);
    return true;
  }

 private:
  void make() {
    fork_ = forks;
    made_ = seconds_now();
    RAND_bytes(&private_[0][0], sizeof private_);
    good_ = x25519_public_ifma8(public_, private_);
  }

  uint8_t private_[X25519_LANES][X25519_BYTES], public_[X25519_LANES][X25519_BYTES];
  unsigned good_ = 0;  // the lanes that are left
  int64_t made_ = 0;
  uint32_t fork_ = 0;
};

}  // namespace

const char *key_exchange_backend() {
  return use_ifma() ? "ifma8" : "boringssl";
}

}  // namespace tls_offload

int __wrap_X25519(uint8_t shared[32], const uint8_t private_key[32], const uint8_t point[32]) {
  if (!tls_offload::use_ifma()) return __real_X25519(shared, private_key, point);
  return x25519_shared_ifma4(shared, private_key, point);
}

void __wrap_X25519_keypair(uint8_t public_key[32], uint8_t private_key[32]) {
  thread_local tls_offload::Pairs pairs;
  if (!tls_offload::use_ifma() || !pairs.take(public_key, private_key)) __real_X25519_keypair(public_key, private_key);
}
