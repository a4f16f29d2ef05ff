// Sessions with the servers of one upstream configuration, kept to be resumed; shared by its workers.
//
// A configuration has one identity and one expectation of its peers, so a session never meets another of either. What
// an identity is may change under its name, though: sessions are kept with the names that its certificates had, and
// given out only for the same.
#ifndef TLS_OFFLOAD_CLIENT_SESSIONS_H
#define TLS_OFFLOAD_CLIENT_SESSIONS_H

#include <openssl/ssl.h>

#include <deque>
#include <mutex>

#include "identity.h"

namespace tls_offload {

class ClientSessions {
 public:
  explicit ClientSessions(size_t most) : most_(most) {}

  void put(const Identity &identity, bssl::UniquePtr<SSL_SESSION> session);
  // The newest; null when there is none. One that is for a single use (TLS 1.3, RFC 8446 C.4) is given out once.
  bssl::UniquePtr<SSL_SESSION> take(const Identity &identity);

 private:
  struct Kept {
    Identity::NamesDigest names;
    bssl::UniquePtr<SSL_SESSION> session;
  };

  const size_t most_;
  std::mutex mutex_;
  std::deque<Kept> kept_;  // newest first
};

}  // namespace tls_offload

#endif
