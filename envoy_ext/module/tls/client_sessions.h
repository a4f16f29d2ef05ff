// Sessions with the servers of one upstream configuration, kept to be resumed; shared by its workers.
//
// A configuration has one identity and one expectation of its peers. Who the identity is, and whom it trusts, may
// change under its name, though: sessions are kept with the context (TlsContext::session_context) in which they were
// made, and given out only in the same.
#ifndef TLS_OFFLOAD_CLIENT_SESSIONS_H
#define TLS_OFFLOAD_CLIENT_SESSIONS_H

#include <openssl/ssl.h>

#include <array>
#include <cstdint>
#include <deque>
#include <mutex>

namespace tls_offload {

class ClientSessions {
 public:
  using Context = std::array<uint8_t, 32>;

  explicit ClientSessions(size_t most) : most_(most) {}

  void put(const Context &context, bssl::UniquePtr<SSL_SESSION> session);
  // The newest; null when there is none. One that is for a single use (TLS 1.3, RFC 8446 C.4) is given out once.
  bssl::UniquePtr<SSL_SESSION> take(const Context &context);

 private:
  struct Kept {
    Context context;
    bssl::UniquePtr<SSL_SESSION> session;
  };

  const size_t most_;
  std::mutex mutex_;
  std::deque<Kept> kept_;  // newest first
};

}  // namespace tls_offload

#endif
