#include "envoy_ext/module/peer/peer.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "envoy_ext/module/spiffe/spiffe_id.h"

namespace tls_offload {
namespace {

PeerVerdict refused(PeerFault fault, std::string reason) {
  return {fault, std::move(reason)};
}

PeerFault fault_of(int error) {
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID: return PeerFault::Expired;
    case X509_V_ERR_CERT_REVOKED: return PeerFault::Revoked;
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

// One verification: the context in which BoringSSL's errors are judged.
struct Validation {
  int64_t now;                   // seconds since 1970
  int64_t skew;                  // how much the issuer's clock and ours may differ
  const RevocationLists *lists;  // null: none are checked
  bool list_failed = false;      // the error is a list's, not a certificate's
};

bool not_after(const ASN1_TIME *time, int64_t limit) {
  int64_t value;
  return time != nullptr && ASN1_TIME_to_posix(time, &value) && value <= limit;
}
bool not_before(const ASN1_TIME *time, int64_t limit) {
  int64_t value;
  return time != nullptr && ASN1_TIME_to_posix(time, &value) && value >= limit;
}

// Forgives certificates and lists that are expired or not yet valid by no more than clocks may differ, and a missing
// list for a CA; the leaf's issuer must have one.
bool forgiven(X509_STORE_CTX *context, Validation &validation) {
  const X509 *certificate = X509_STORE_CTX_get_current_cert(context);
  const X509_CRL *list = X509_STORE_CTX_get0_current_crl(context);
  int64_t earliest = validation.now - validation.skew, latest = validation.now + validation.skew;
  int error = X509_STORE_CTX_get_error(context);
  validation.list_failed =
      error == X509_V_ERR_UNABLE_TO_GET_CRL || (list != nullptr && error != X509_V_ERR_CERT_REVOKED);
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED: return not_before(X509_get0_notAfter(certificate), earliest);
    case X509_V_ERR_CERT_NOT_YET_VALID: return not_after(X509_get0_notBefore(certificate), latest);
    case X509_V_ERR_CRL_HAS_EXPIRED: return not_before(X509_CRL_get0_nextUpdate(list), earliest);
    case X509_V_ERR_CRL_NOT_YET_VALID: return not_after(X509_CRL_get0_lastUpdate(list), latest);
    case X509_V_ERR_UNABLE_TO_GET_CRL:
      return X509_STORE_CTX_get_error_depth(context) > 0 &&
             !validation.lists->has_list_of(X509_get_issuer_name(certificate));
    default: return false;
  }
}

int weigh(int ok, X509_STORE_CTX *context) {
  auto &validation = *static_cast<Validation *>(X509_STORE_CTX_get_app_data(context));
  return ok == 1 || forgiven(context, validation) ? 1 : 0;
}

// Returns X509_V_OK, or the error.
int verify(X509_STORE_CTX *context, X509_STORE *store, STACK_OF(X509) * chain, const char *purpose,
           Validation &validation) {
  if (!X509_STORE_CTX_init(context, store, sk_X509_value(chain, 0), chain) ||
      !X509_STORE_CTX_set_default(context, purpose) || !X509_STORE_CTX_set_app_data(context, &validation)) {
    ERR_clear_error();
    return X509_V_ERR_UNSPECIFIED;
  }
  // Every CA of a bundle is a trust anchor, even one that another CA has signed.
  X509_STORE_CTX_set_flags(context, X509_V_FLAG_PARTIAL_CHAIN);
  if (validation.lists != nullptr) {
    X509_STORE_CTX_set_flags(context, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
  }
  X509_STORE_CTX_set_time_posix(context, 0, validation.now);
  X509_STORE_CTX_set_verify_cb(context, weigh);
  bool good = X509_verify_cert(context) == 1;
  int error = X509_STORE_CTX_get_error(context);
  ERR_clear_error();
  return good ? X509_V_OK : error == X509_V_OK ? X509_V_ERR_UNSPECIFIED : error;
}

// Empty, or why this certificate's cryptography is too weak. An anchor's own signature proves nothing and is not
// checked.
std::string_view weakness(const X509 *certificate, bool anchor) {
  constexpr int kLeastRsaBits = 2048;
  const EVP_PKEY *key = X509_get0_pubkey(certificate);
  if (key == nullptr || (EVP_PKEY_id(key) == EVP_PKEY_RSA && EVP_PKEY_bits(key) < kLeastRsaBits)) {
    return "has an RSA key of fewer than 2048 bits";
  }
  switch (anchor ? NID_undef : X509_get_signature_nid(certificate)) {
    case NID_md5WithRSAEncryption:
    case NID_sha1WithRSAEncryption:
    case NID_ecdsa_with_SHA1: return "is signed with SHA-1 or MD5";
    default: return {};
  }
}

// The earliest end of validity among the certificates of the path and the lists about them.
int64_t first_end(STACK_OF(X509) * path, const Validation &validation) {
  int64_t end = INT64_MAX, value;
  for (size_t i = 0; i < sk_X509_num(path); i++) {
    const X509 *certificate = sk_X509_value(path, i);
    if (ASN1_TIME_to_posix(X509_get0_notAfter(certificate), &value)) end = std::min(end, value);
    for (size_t k = 0; validation.lists != nullptr && k < validation.lists->lists.size(); k++) {
      const X509_CRL *list = validation.lists->lists[k].get();
      if (X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_issuer_name(certificate)) != 0) continue;
      const ASN1_TIME *next = X509_CRL_get0_nextUpdate(list);
      // A list that has expired already is not what the verdict rests on.
      if (next != nullptr && ASN1_TIME_to_posix(next, &value) && value + validation.skew > validation.now) {
        end = std::min(end, value);
      }
    }
  }
  return end > INT64_MAX - validation.skew ? end : end + validation.skew;
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

// RFC 8446, 6.2.
uint8_t alert_of(PeerFault fault) {
  switch (fault) {
    case PeerFault::NoCertificate: return SSL_AD_CERTIFICATE_REQUIRED;
    case PeerFault::UnknownCa: return SSL_AD_UNKNOWN_CA;
    case PeerFault::Expired: return SSL_AD_CERTIFICATE_EXPIRED;
    case PeerFault::Revoked: return SSL_AD_CERTIFICATE_REVOKED;
    case PeerFault::RevocationUnknown: return SSL_AD_CERTIFICATE_UNKNOWN;
    case PeerFault::Unsuitable: return SSL_AD_UNSUPPORTED_CERTIFICATE;
    case PeerFault::NotAccepted: return SSL_AD_ACCESS_DENIED;
    case PeerFault::SpiffeId:
    case PeerFault::Other:
    case PeerFault::None: break;
  }
  return SSL_AD_BAD_CERTIFICATE;
}

bool Trust::load(const SocketConfig &config, ClientStats *stats, std::string &error) {
  config_ = &config;
  stats_ = stats;
  if (!config.trusted_ca_file.empty() && !load_authorities(config.trusted_ca_file, error)) return false;
  // Each part is length-prefixed, so that no two different lists give the same text.
  auto add = [&](const std::string &part) { settings_ += std::to_string(part.size()) + ":" + part; };
  add(std::to_string(config.clock_skew.count()));
  for (const std::string &domain : config.trust_domains) add("domain " + domain);
  for (const SpiffeMatch &match : config.peer_spiffe_ids) {
    add((match.kind == SpiffeMatch::Kind::Exact ? "exact " : "prefix ") + match.value);
  }
  for (const std::string &name : config.peer_dns_names) add("name " + name);
  for (const auto &authority : file_) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (X509_digest(authority.get(), EVP_sha256(), digest, &size)) add("ca " + hex(digest, size));
  }
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

std::shared_ptr<const RevocationLists> Trust::revocation() const {
  return revocation_ != nullptr ? revocation_->current(Clock::now(), stats_) : nullptr;
}

std::string Trust::fingerprint(const Identity &identity) const {
  std::string result = settings_;
  if (file_.empty()) result += " bundles " + hex(identity.bundles_digest.data(), identity.bundles_digest.size());
  if (auto lists = revocation()) result += " lists " + hex(lists->digest.data(), lists->digest.size());
  return result;
}

PeerVerdict Trust::judge(SSL *ssl, const Identity &identity) const {
  STACK_OF(X509) *chain = SSL_get_peer_full_cert_chain(ssl);
  if (chain == nullptr || sk_X509_num(chain) == 0) {
    return refused(PeerFault::NoCertificate, "peer sent no certificate");
  }
  return judge(chain, identity);
}

PeerVerdict Trust::judge(STACK_OF(X509) * chain, const Identity &identity) const {
  X509 *leaf = sk_X509_value(chain, 0);
  SvidNames names = svid_names(leaf);
  if (!names.fault.empty()) {
    return refused(PeerFault::SpiffeId, "peer certificate " + names.fault);
  }
  bssl::UniquePtr<X509_STORE> store(X509_STORE_new());
  if (!fill(store.get(), identity, names.id)) {
    return refused(PeerFault::UnknownCa,
                   names.id.empty()
                       ? "peer certificate has no SPIFFE id, and every trust bundle is limited to a trust domain"
                       : "no trust bundle for " + names.id);
  }
  if (!names.id.empty()) {
    std::string_view fault = svid_usage_fault(leaf);
    if (!fault.empty()) {
      return refused(PeerFault::Unsuitable, "peer certificate of " + names.id + " " + std::string(fault));
    }
  }
  PeerVerdict verdict = verify_chain(store.get(), chain, names.id);
  return verdict.good() ? accept(leaf, names.id, std::move(verdict)) : verdict;
}

// Adds the CAs that may vouch for a peer of this id; false when there are none.
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
  std::string peer = "peer certificate" + (id.empty() ? "" : " of " + id);
  auto lists = revocation();
  for (size_t i = 0; lists != nullptr && i < lists->lists.size(); i++) {
    if (!X509_STORE_add_crl(store, lists->lists[i].get()))
      return refused(PeerFault::RevocationUnknown, peer + ": revocation lists cannot be used");
  }
  const char *purpose = config_->direction == Direction::Upstream ? "ssl_server" : "ssl_client";
  bssl::UniquePtr<X509_STORE_CTX> context(X509_STORE_CTX_new());
  Validation validation{time(nullptr), config_->clock_skew.count(), lists.get()};
  int error = verify(context.get(), store, chain, purpose, validation);
  if (error != X509_V_OK) {
    return refused(validation.list_failed ? PeerFault::RevocationUnknown : fault_of(error),
                   peer + ": " + X509_verify_cert_error_string(error));
  }
  STACK_OF(X509) *path = X509_STORE_CTX_get0_chain(context.get());
  for (size_t i = 0; i < sk_X509_num(path); i++) {
    std::string_view weak = weakness(sk_X509_value(path, i), i + 1 == sk_X509_num(path));
    if (weak.empty()) continue;
    return refused(PeerFault::Unsuitable,
                   peer + (i == 0 ? " " : ": a CA certificate in its chain ") + std::string(weak));
  }
  for (size_t i = 1; !id.empty() && i < sk_X509_num(path); i++) {
    std::string fault = svid_issuer_fault(sk_X509_value(path, i));
    if (!fault.empty()) return refused(PeerFault::SpiffeId, peer + ": a CA certificate in its chain " + fault);
  }
  return {PeerFault::None, {}, first_end(path, validation)};
}

// Whether the configuration accepts a peer whose certificate is good.
PeerVerdict Trust::accept(X509 *leaf, const std::string &id, PeerVerdict good) const {
  if (config_->peer_spiffe_ids.empty() && config_->peer_dns_names.empty()) return good;
  if (!id.empty() && any_matches(config_->peer_spiffe_ids, id)) return good;
  for (const std::string &name : config_->peer_dns_names) {
    if (X509_check_host(leaf, name.data(), name.size(), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, nullptr) == 1)
      return good;
  }
  return refused(PeerFault::NotAccepted, id.empty() ? "peer certificate has no SPIFFE id and no accepted name"
                                                    : "peer " + id + " is not accepted here");
}

}  // namespace tls_offload
