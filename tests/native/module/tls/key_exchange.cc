// Compares X25519 as BoringSSL gets it in the module with BoringSSL's own.
#include "envoy_ext/module/tls/key_exchange.h"

#include <openssl/curve25519.h>
#include <openssl/rand.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

extern "C" {
int __real_X25519(uint8_t shared[32], const uint8_t private_key[32], const uint8_t point[32]);
}

namespace tests {
namespace {

using Bytes = std::array<uint8_t, 32>;

struct Pair {
  Bytes public_key, private_key;
};

Pair new_pair() {
  Pair pair;
  X25519_keypair(pair.public_key.data(), pair.private_key.data());
  return pair;
}

// The keys of every pair match, and each pair is used once, on any thread.
void pairs_are_right_and_new() {
  constexpr int kThreads = 3, kEach = 50;
  std::vector<Pair> pairs(kThreads * kEach);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; i++) pairs[size_t{kEach} * size_t(t) + size_t(i)] = new_pair();
    });
  for (std::thread &thread : threads) thread.join();
  std::set<Bytes> seen;
  for (const Pair &pair : pairs) {
    Bytes expected;
    X25519_public_from_private(expected.data(), pair.private_key.data());
    CHECK(pair.public_key == expected);
    CHECK(seen.insert(pair.private_key).second);
  }
}

void secrets_are_boringssls() {
  for (int i = 0; i < 200; i++) {
    Pair ours = new_pair();
    Bytes point, secret, expected;
    RAND_bytes(point.data(), point.size());
    CHECK(X25519(secret.data(), ours.private_key.data(), point.data()) == 1);
    CHECK(__real_X25519(expected.data(), ours.private_key.data(), point.data()) == 1);
    CHECK(secret == expected);
  }
  Pair ours = new_pair();
  Bytes zero{}, secret;
  CHECK(X25519(secret.data(), ours.private_key.data(), zero.data()) == 0);
}

// The parent has pairs left; the child must not hand out the same.
void a_fork_shares_none() {
  new_pair();
  int ends[2];
  CHECK(pipe(ends) == 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    for (int i = 0; i < 16; i++) {
      Pair pair = new_pair();
      if (write(ends[1], pair.private_key.data(), pair.private_key.size()) != 32) _exit(1);
    }
    _exit(0);
  }
  close(ends[1]);
  std::set<Bytes> of_child;
  Bytes one;
  while (read(ends[0], one.data(), one.size()) == ssize_t(one.size())) of_child.insert(one);
  close(ends[0]);
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(of_child.size() == 16);
  for (int i = 0; i < 16; i++) CHECK(!of_child.count(new_pair().private_key));
}

}  // namespace

void key_exchange() {
  const char *backend = tls_offload::key_exchange_backend();
  bool ifma = __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("avx512vbmi2");
  bool turned_off = getenv("TLS_OFFLOAD_KEY_EXCHANGE") != nullptr;
  CHECK(strcmp(backend, ifma && !turned_off ? "ifma8" : "boringssl") == 0);
  pairs_are_right_and_new();
  secrets_are_boringssls();
  a_fork_shares_none();
}

}  // namespace tests
