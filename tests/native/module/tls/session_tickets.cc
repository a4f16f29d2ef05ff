// Keys of session tickets and their rotation.
#include "envoy_ext/module/tls/session_tickets.h"

#include <chrono>

#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {

using namespace tls_offload;

void ticket_keys_rotate() {
  TicketKeys keys(std::chrono::seconds(100));
  Time start = Time{} + std::chrono::hours(1);
  auto at = [&](int seconds) { return start + std::chrono::seconds(seconds); };
  TicketKeys::Key first = keys.sealing(at(0)), key;
  bool renew;
  CHECK(keys.opening(first.name.data(), at(99), key, renew) && !renew && key.cipher_key == first.cipher_key);
  CHECK(keys.sealing(at(99)).name == first.name);
  TicketKeys::Key second = keys.sealing(at(100));
  CHECK(second.name != first.name && second.cipher_key != first.cipher_key);
  CHECK(keys.opening(first.name.data(), at(150), key, renew) && renew);
  CHECK(!keys.opening(first.name.data(), at(200), key, renew));
  keys.sealing(at(201));
  CHECK(!keys.opening(first.name.data(), at(201), key, renew));
  CHECK(keys.opening(second.name.data(), at(201), key, renew) && renew);
  uint8_t unknown[SSL_TICKET_KEY_NAME_LEN] = {};
  CHECK(!keys.opening(unknown, at(201), key, renew));
}

}  // namespace tests
