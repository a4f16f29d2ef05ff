#include "revocation.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include "log.h"

namespace tls_offload {
namespace {

constexpr auto kLookEvery = std::chrono::seconds(1);

std::shared_ptr<const RevocationLists> read_lists(const std::string &file, std::string &error) {
  bssl::UniquePtr<BIO> from(BIO_new_file(file.c_str(), "r"));
  auto lists = std::make_shared<RevocationLists>();
  while (from != nullptr) {
    bssl::UniquePtr<X509_CRL> list(PEM_read_bio_X509_CRL(from.get(), nullptr, nullptr, nullptr));
    if (list == nullptr) break;
    lists->push_back(std::move(list));
  }
  bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (from == nullptr) {
    error = file + " cannot be opened";
  } else if (lists->empty() || !at_end) {
    error = file + ": revocation list " + std::to_string(lists->size() + 1) + " is missing or malformed";
  }
  return error.empty() ? lists : nullptr;
}

bool same_file(const struct stat &a, const struct stat &b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

}  // namespace

bool Revocation::load(const std::string &file, std::string &error) {
  file_ = file;
  if (stat(file.c_str(), &seen_) != 0) seen_ = {};
  lists_ = read_lists(file, error);
  return lists_ != nullptr;
}

std::shared_ptr<const RevocationLists> Revocation::current(Time now) {
  std::lock_guard lock(mutex_);
  if (now - looked_at_ < kLookEvery) return lists_;
  looked_at_ = now;
  struct stat found{};
  if (stat(file_.c_str(), &found) != 0 || same_file(found, seen_)) return lists_;
  seen_ = found;
  std::string error;
  if (auto fresh = read_lists(file_, error)) {
    lists_ = std::move(fresh);
  } else {
    log(abi::LogLevel::Error, "crl_file: " + error + "; the lists read before stay in force");
  }
  return lists_;
}

}  // namespace tls_offload
