// Identities as the daemon describes them: server names, damaged messages, and messages of the tests in Python.
#include "envoy_ext/module/client/identity.h"

#include <cstdint>
#include <cstdio>
#include <random>
#include <string>

#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {

using namespace tls_offload;

void server_names_match() {
  Credential credential;
  credential.dns_names = {"web.test", "*.shop.test", "*", "*."};
  using Match = Credential::Match;
  CHECK(credential.match("web.test") == Match::Exact);
  CHECK(credential.match("de.shop.test") == Match::Wildcard);
  CHECK(credential.match("a.de.shop.test") == Match::None);
  CHECK(credential.match("shop.test") == Match::None);
  CHECK(credential.match(".shop.test") == Match::None);
  CHECK(credential.match("*.shop.test") == Match::Exact);
  CHECK(credential.match("other.test") == Match::None);
  CHECK(credential.match("") == Match::None);
}

namespace {

std::string field(int number, const std::string &bytes) {
  std::string result(1, static_cast<char>(number << 3 | 2));
  for (size_t size = bytes.size();; size >>= 7) {
    result += static_cast<char>((size & 0x7f) | (size > 0x7f ? 0x80 : 0));
    if (size <= 0x7f) break;
  }
  return result + bytes;
}

}  // namespace

void identities_of_all_kinds() {
  std::string certificate(300, '\x30');
  std::string credential = field(1, std::string(32, 'k')) + field(2, certificate) + field(3, "\x84\x10\x83\x08") +
                           std::string("\x20\x01", 2) + field(5, "web.test");
  std::string bundle = field(1, "mesh.test") + field(2, certificate);
  std::string message = field(1, "web") + std::string("\x10\x07", 2) + field(3, credential) + field(4, bundle);
  std::mt19937 random(2);
  for (int i = 0; i < 20000; i++) {
    std::string mutated = message;
    if (i > 0) {
      for (unsigned n = random() % 6; n > 0; n--) mutated[random() % mutated.size()] = static_cast<char>(random());
      mutated.resize(random() % 8 == 0 ? random() % mutated.size() : mutated.size());
    }
    std::string error;
    auto identity = Identity::decode({reinterpret_cast<const uint8_t *>(mutated.data()), mutated.size()}, error);
    CHECK(identity == nullptr && !error.empty());  // its certificate is invalid
  }
}

void decode_identities(std::istream &messages) {
  uint32_t size;
  while (messages.read(reinterpret_cast<char *>(&size), sizeof size)) {
    std::string message(size, '\0'), error;
    messages.read(message.data(), size);
    auto identity = Identity::decode({reinterpret_cast<const uint8_t *>(message.data()), message.size()}, error);
    printf("%s\n", identity != nullptr ? "good" : error.c_str());
  }
}

}  // namespace tests
