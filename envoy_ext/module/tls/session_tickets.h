// Session tickets: one set of keys for the whole process, so that any worker, and any listener of the same identity,
// can resume another's sessions. Keys are rotated, and never stored outside the process.
//
// A key seals tickets for one period and opens them for one more. The session's id context (tls_context.cc), not the
// key, decides what a ticket may resume: identity and client-certificate settings must be the same.
#ifndef TLS_OFFLOAD_SESSION_TICKETS_H
#define TLS_OFFLOAD_SESSION_TICKETS_H

#include <openssl/ssl.h>

#include <array>
#include <mutex>
#include <vector>

#include "envoy_ext/module/client/reconnect.h"

namespace tls_offload {

class TicketKeys {
 public:
  struct Key {
    std::array<uint8_t, SSL_TICKET_KEY_NAME_LEN> name;
    std::array<uint8_t, 32> cipher_key;
    std::array<uint8_t, 32> mac_key;
    Time made;
  };

  explicit TicketKeys(Duration period) : period_(period) {}
  ~TicketKeys();

  Key sealing(Time now);
  // False when no key has that name any more. Sets `renew` when the ticket should be replaced by one under the current
  // key.
  bool opening(const uint8_t *name, Time now, Key &key, bool &renew);

  // The keys of the process; their period is the longest session lifetime configured so far.
  static TicketKeys &process(Duration period);

 private:
  void rotate(Time now);

  std::mutex mutex_;
  Duration period_;
  std::vector<Key> keys_;  // newest first, at most two
};

// Makes `context` use the keys of the process.
void use_ticket_keys(SSL_CTX *context, Duration lifetime);

}  // namespace tls_offload

#endif
