// The revocation lists of a file, which is read again when it changes.
//
// When the file later becomes unreadable or malformed, nothing changes: what was read last stays in force, and Envoy's
// log and a counter report it. The verification rejects a list after its next-update time, so an attacker who withholds
// new lists does not get a revoked peer accepted.
#ifndef TLS_OFFLOAD_REVOCATION_H
#define TLS_OFFLOAD_REVOCATION_H

#include <openssl/x509.h>
#include <sys/stat.h>

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "envoy_ext/module/client/reconnect.h"
#include "envoy_ext/module/envoy/stats.h"

namespace tls_offload {

struct RevocationLists {
  std::vector<bssl::UniquePtr<X509_CRL>> lists;
  std::array<uint8_t, 32> digest{};  // SHA-256 of the lists' signed contents

  bool has_list_of(const X509_NAME *issuer) const;
};

class Revocation {
 public:
  // False with the reason in `error`.
  bool load(const std::string &file, std::string &error);

  // May be called by any thread. The file is checked once a second at most; the outcome is counted in `stats` unless
  // that is null.
  std::shared_ptr<const RevocationLists> current(Time now, ClientStats *stats);

 private:
  std::string file_;
  std::mutex mutex_;
  std::shared_ptr<const RevocationLists> lists_;
  struct stat seen_{};
  Time looked_at_{};
};

}  // namespace tls_offload

#endif
