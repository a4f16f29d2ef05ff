// Sessions with the servers of one upstream configuration, kept for resumption and shared by the workers.
//
// A configuration has one identity and one set of accepted peers. But the certificate and the trust bundles behind the
// identity's name may change: sessions are kept with the context (TlsContext::session_context) in which they were made,
// and are only resumed in the same context.
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
  // Returns the newest session; null when there is none. A single-use session (TLS 1.3, RFC 8446 C.4) is returned only
  // once.
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
