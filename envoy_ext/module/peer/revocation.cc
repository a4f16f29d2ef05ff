#include "envoy_ext/module/peer/revocation.h"

#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/sha.h>

#include <algorithm>

#include "envoy_ext/module/envoy/log.h"

namespace tls_offload {
namespace {

constexpr auto kLookEvery = std::chrono::seconds(1);

std::shared_ptr<const RevocationLists> read_lists(const std::string &file, std::string &error) {
  struct stat kind{};
  auto lists = std::make_shared<RevocationLists>();
  // Reading a pipe would block a worker.
  if (stat(file.c_str(), &kind) == 0 && !S_ISREG(kind.st_mode)) {
    error = file + " is not a regular file";
    return nullptr;
  }
  bssl::UniquePtr<BIO> from(BIO_new_file(file.c_str(), "r"));
  SHA256_CTX hash;
  SHA256_Init(&hash);
  while (from != nullptr) {
    bssl::UniquePtr<X509_CRL> list(PEM_read_bio_X509_CRL(from.get(), nullptr, nullptr, nullptr));
    if (list == nullptr) break;
    uint8_t *der = nullptr;
    int size = i2d_X509_CRL(list.get(), &der);
    if (size > 0) SHA256_Update(&hash, der, static_cast<size_t>(size));
    OPENSSL_free(der);
    lists->lists.push_back(std::move(list));
  }
  bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (from == nullptr) {
    error = file + " cannot be opened";
  } else if (lists->lists.empty() || !at_end) {
    error = file + ": revocation list " + std::to_string(lists->lists.size() + 1) + " is missing or malformed";
  }
  SHA256_Final(lists->digest.data(), &hash);
  return error.empty() ? lists : nullptr;
}

bool same_file(const struct stat &a, const struct stat &b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

}  // namespace

bool RevocationLists::has_list_of(const X509_NAME *issuer) const {
  return std::any_of(lists.begin(), lists.end(),
                     [&](const auto &list) { return X509_NAME_cmp(X509_CRL_get_issuer(list.get()), issuer) == 0; });
}

bool Revocation::load(const std::string &file, std::string &error) {
  file_ = file;
  if (stat(file.c_str(), &seen_) != 0) seen_ = {};
  lists_ = read_lists(file, error);
  return lists_ != nullptr;
}

std::shared_ptr<const RevocationLists> Revocation::current(Time now, ClientStats *stats) {
  std::lock_guard lock(mutex_);
  if (now - looked_at_ < kLookEvery) return lists_;
  looked_at_ = now;
  struct stat found{};
  if (stat(file_.c_str(), &found) != 0) found = {};
  if (same_file(found, seen_)) return lists_;
  seen_ = found;
  std::string error;
  auto fresh = read_lists(file_, error);
  if (stats != nullptr) stats->add(fresh != nullptr ? Counter::RevocationUpdates : Counter::RevocationFailures);
  if (fresh != nullptr) {
    lists_ = std::move(fresh);
  } else {
    log(abi::LogLevel::Error, "crl_file: " + error + "; the lists read before stay in force");
  }
  return lists_;
}

}  // namespace tls_offload
