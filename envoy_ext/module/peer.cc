#include "peer.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "spiffe_id.h"

namespace tls_offload {
namespace {

PeerVerdict refused(PeerFault fault, int alert, std::string reason) {
  return {fault, static_cast<uint8_t>(alert), std::move(reason)};
}

PeerFault fault_of(int error) {
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID: return PeerFault::Expired;
    case X509_V_ERR_CERT_REVOKED:
    case X509_V_ERR_UNABLE_TO_GET_CRL:
    case X509_V_ERR_CRL_HAS_EXPIRED:
    case X509_V_ERR_CRL_NOT_YET_VALID:
    case X509_V_ERR_CRL_SIGNATURE_FAILURE: return PeerFault::Revoked;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG: return PeerFault::UnknownCa;
    case X509_V_ERR_INVALID_PURPOSE:
    case X509_V_ERR_INVALID_CA:
    case X509_V_ERR_PATH_LENGTH_EXCEEDED:
    case X509_V_ERR_PERMITTED_VIOLATION:
    case X509_V_ERR_EXCLUDED_VIOLATION: return PeerFault::Unsuitable;
    default: return PeerFault::Other;
  }
}

bool add_all(X509_STORE *store, const std::vector<bssl::UniquePtr<X509>> &authorities) {
  return std::all_of(authorities.begin(), authorities.end(),
                     [&](const auto &authority) { return X509_STORE_add_cert(store, authority.get()); });
}

struct Clocks {
  int64_t now;   // seconds since 1970
  int64_t skew;  // by which the issuer's clock and ours may differ
};

// Lets a certificate pass that is too old or too young by no more than clocks may differ.
int forgive_skew(int ok, X509_STORE_CTX *context) {
  const auto *clocks = static_cast<const Clocks *>(X509_STORE_CTX_get_app_data(context));
  const X509 *certificate = X509_STORE_CTX_get_current_cert(context);
  if (ok == 1 || certificate == nullptr) return ok;
  // X509_cmp_time_posix: negative when the certificate's time is not after the given one; 0 is an error.
  switch (X509_STORE_CTX_get_error(context)) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return X509_cmp_time_posix(X509_get0_notAfter(certificate), clocks->now - clocks->skew) > 0 ? 1 : 0;
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return X509_cmp_time_posix(X509_get0_notBefore(certificate), clocks->now + clocks->skew) < 0 ? 1 : 0;
    default: return 0;
  }
}

// X509_V_OK, or the error.
int verify(X509_STORE *store, STACK_OF(X509) * chain, const char *purpose, unsigned long flags, Clocks clocks) {
  bssl::UniquePtr<X509_STORE_CTX> context(X509_STORE_CTX_new());
  if (!X509_STORE_CTX_init(context.get(), store, sk_X509_value(chain, 0), chain) ||
      !X509_STORE_CTX_set_default(context.get(), purpose) || !X509_STORE_CTX_set_app_data(context.get(), &clocks)) {
    ERR_clear_error();
    return X509_V_ERR_UNSPECIFIED;
  }
  X509_STORE_CTX_set_flags(context.get(), flags);
  X509_STORE_CTX_set_time_posix(context.get(), 0, clocks.now);
  X509_STORE_CTX_set_verify_cb(context.get(), forgive_skew);
  bool good = X509_verify_cert(context.get()) == 1;
  int error = X509_STORE_CTX_get_error(context.get());
  ERR_clear_error();
  return good ? X509_V_OK : error == X509_V_OK ? X509_V_ERR_UNSPECIFIED : error;
}

}  // namespace

std::string hex(const uint8_t *data, size_t size) {
  static const char digits[] = "0123456789abcdef";
  std::string result;
  for (size_t i = 0; i < size; i++) {
    result += digits[data[i] >> 4];
    result += digits[data[i] & 15];
  }
  return result;
}

bool Trust::load(const SocketConfig &config, std::string &error) {
  config_ = &config;
  if (!config.trusted_ca_file.empty() && !load_authorities(config.trusted_ca_file, error)) return false;
  if (config.crl_file.empty()) return true;
  revocation_ = std::make_unique<Revocation>();
  if (revocation_->load(config.crl_file, error)) return true;
  error = "crl_file: " + error;
  return false;
}

bool Trust::load_authorities(const std::string &path, std::string &error) {
  bssl::UniquePtr<BIO> file(BIO_new_file(path.c_str(), "r"));
  names_.reset(sk_X509_NAME_new_null());
  while (file != nullptr) {
    bssl::UniquePtr<X509> certificate(PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr));
    if (certificate == nullptr) break;
    bssl::PushToStack(names_.get(),
                      bssl::UniquePtr<X509_NAME>(X509_NAME_dup(X509_get_subject_name(certificate.get()))));
    file_.push_back(std::move(certificate));
  }
  bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (file == nullptr) error = "trusted_ca_file: " + path + " cannot be opened";
  if (file != nullptr && (file_.empty() || !at_end)) {
    error =
        "trusted_ca_file: " + path + ": certificate " + std::to_string(file_.size() + 1) + " is missing or malformed";
  }
  return error.empty();
}

PeerVerdict Trust::judge(SSL *ssl, const Identity &identity) const {
  STACK_OF(X509) *chain = SSL_get_peer_full_cert_chain(ssl);
  if (chain == nullptr || sk_X509_num(chain) == 0) {
    return refused(PeerFault::Other, SSL_AD_CERTIFICATE_REQUIRED, "peer sent no certificate");
  }
  X509 *leaf = sk_X509_value(chain, 0);
  SvidNames names = svid_names(leaf);
  if (!names.fault.empty()) {
    return refused(PeerFault::SpiffeId, SSL_AD_BAD_CERTIFICATE, "peer certificate " + names.fault);
  }
  bssl::UniquePtr<X509_STORE> store(X509_STORE_new());
  if (!fill(store.get(), identity, names.id)) {
    return refused(PeerFault::UnknownCa, SSL_AD_UNKNOWN_CA,
                   names.id.empty()
                       ? "peer certificate has no SPIFFE id, and no trust bundle is bound to no trust domain"
                       : "no trust bundle for " + names.id);
  }
  PeerVerdict verdict = verify_chain(store.get(), chain, names.id);
  if (!verdict.good()) return verdict;
  if (!names.id.empty()) {
    std::string_view fault = svid_usage_fault(leaf);
    if (!fault.empty()) {
      return refused(PeerFault::Unsuitable, SSL_AD_UNSUPPORTED_CERTIFICATE,
                     "peer certificate of " + names.id + " " + std::string(fault));
    }
  }
  return accept(leaf, names.id);
}

// The CAs that may speak for a peer of this id; false when there are none.
bool Trust::fill(X509_STORE *store, const Identity &identity, const std::string &id) const {
  if (!file_.empty()) return add_all(store, file_);
  bool any = false;
  const auto &listed = config_->trust_domains;
  for (const TrustBundle &bundle : identity.trust_bundles) {
    bool wanted = listed.empty() || std::find(listed.begin(), listed.end(), bundle.trust_domain) != listed.end();
    bool fits = bundle.trust_domain.empty() || (!id.empty() && trust_domain_of(id) == bundle.trust_domain);
    if (!wanted || !fits) continue;
    if (!add_all(store, bundle.authorities)) return false;
    any = true;
  }
  return any;
}

PeerVerdict Trust::verify_chain(X509_STORE *store, STACK_OF(X509) * chain, const std::string &id) const {
  // Every CA of a bundle is an anchor, also one that another has signed.
  unsigned long flags = X509_V_FLAG_PARTIAL_CHAIN;
  if (revocation_ != nullptr) {
    flags |= X509_V_FLAG_CRL_CHECK;
    for (const auto &list : *revocation_->current(Clock::now())) X509_STORE_add_crl(store, list.get());
  }
  const char *purpose = config_->direction == Direction::Upstream ? "ssl_server" : "ssl_client";
  int error = verify(store, chain, purpose, flags, {time(nullptr), config_->clock_skew.count()});
  if (error == X509_V_OK) return {};
  return refused(
      fault_of(error), SSL_alert_from_verify_result(error),
      std::string("peer certificate") + (id.empty() ? "" : " of " + id) + ": " + X509_verify_cert_error_string(error));
}

// Whether a peer whose certificate is good is one that the configuration wants.
PeerVerdict Trust::accept(X509 *leaf, const std::string &id) const {
  if (config_->peer_spiffe_ids.empty() && config_->peer_dns_names.empty()) return {};
  if (!id.empty() && any_matches(config_->peer_spiffe_ids, id)) return {};
  for (const std::string &name : config_->peer_dns_names) {
    if (X509_check_host(leaf, name.data(), name.size(), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, nullptr) == 1) return {};
  }
  return refused(PeerFault::NotAccepted, SSL_AD_ACCESS_DENIED,
                 id.empty() ? "peer certificate has no SPIFFE id and no name that is accepted here"
                            : "peer " + id + " is not one that is accepted here");
}

}  // namespace tls_offload
