// Revocation lists of a file, read again when the file changes.
//
// A file that cannot be read later on, or is malformed, changes nothing: what was read last stays in force, and Envoy's
// log and a counter say so. Whether a list is too old to be relied on is judged by the verification, by its next
// update: so holding back new lists does not bring a revoked peer back in.
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
  std::array<uint8_t, 32> digest{};  // SHA-256 of their signed contents

  bool has_list_of(const X509_NAME *issuer) const;
};

class Revocation {
 public:
  // False with the reason in `error`.
  bool load(const std::string &file, std::string &error);

  // Any thread. The file is looked at once a second at most; what comes of it is counted in `stats` unless null.
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
