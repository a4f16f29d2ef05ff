// The module's configuration, and damaged ones.
#include "envoy_ext/module/config/config.h"

#include <random>
#include <string>

#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {

using namespace tls_offload;

// Mutations of a valid configuration never crash, and a rejection always has a reason.
void configurations_of_all_kinds() {
  const std::string good =
      R"({"daemon_socket":"/d","identities":["a","b"],"alpn":["h2"],"tls_minimum":"1.2","operation_timeout_ms":5.0,)"
      R"("session_tickets":true,"groups":["X25519"],"client_certificate":"optional","trust_domains":["x"]})";
  std::string error;
  CHECK(parse_socket_config(good, Direction::Downstream, error));
  CHECK(!parse_socket_config("", Direction::Downstream, error) && !error.empty());
  std::mt19937 random(1);
  for (int i = 0; i < 20000; i++) {
    std::string text = good;
    for (unsigned n = random() % 4 + 1; n > 0; n--) {
      size_t at = random() % text.size();
      switch (random() % 3) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text.erase(at, random() % 8); break;
        default: text.insert(at, text.substr(random() % text.size(), random() % 12)); break;
      }
      if (text.empty()) text = "{";
    }
    bool parsed = parse_socket_config(text, Direction::Downstream, error).has_value();
    CHECK(parsed == error.empty());
  }
}

}  // namespace tests
