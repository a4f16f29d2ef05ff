// Revocation lists of a file, read again when the file changes.
//
// A file that cannot be read later on, or is malformed, changes nothing: what was read last stays in force, and Envoy's
// log says so. Whether a list is too old to be relied on is judged by the verification, by its next update.
#ifndef TLS_OFFLOAD_REVOCATION_H
#define TLS_OFFLOAD_REVOCATION_H

#include <openssl/x509.h>
#include <sys/stat.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "reconnect.h"

namespace tls_offload {

using RevocationLists = std::vector<bssl::UniquePtr<X509_CRL>>;

class Revocation {
 public:
  // False with the reason in `error`.
  bool load(const std::string &file, std::string &error);

  // Any thread. The file is looked at once a second at most.
  std::shared_ptr<const RevocationLists> current(Time now);

 private:
  std::string file_;
  std::mutex mutex_;
  std::shared_ptr<const RevocationLists> lists_;
  struct stat seen_{};
  Time looked_at_{};
};

}  // namespace tls_offload

#endif
