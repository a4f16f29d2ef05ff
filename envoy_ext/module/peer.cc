#include "peer.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>

namespace tls_offload {
namespace {

constexpr std::string_view kScheme = "spiffe://";

std::string_view trust_domain_of(std::string_view id) {
  std::string_view rest = id.substr(kScheme.size());
  return rest.substr(0, rest.find('/'));
}

bool fill(X509_STORE *store, const std::vector<bssl::UniquePtr<X509>> &authorities) {
  for (const auto &authority : authorities) {
    if (!X509_STORE_add_cert(store, authority.get())) return false;
  }
  return true;
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

std::string spiffe_id(const X509 *certificate, bool &valid) {
  valid = true;
  bssl::UniquePtr<GENERAL_NAMES> names(
      static_cast<GENERAL_NAMES *>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  ERR_clear_error();
  if (names == nullptr) return {};
  std::string found;
  size_t uris = 0;
  for (size_t i = 0; i < sk_GENERAL_NAME_num(names.get()); i++) {
    const GENERAL_NAME *name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    uris++;
    const ASN1_IA5STRING *uri = name->d.uniformResourceIdentifier;
    std::string_view text(reinterpret_cast<const char *>(ASN1_STRING_get0_data(uri)),
                          static_cast<size_t>(ASN1_STRING_length(uri)));
    if (text.substr(0, kScheme.size()) == kScheme) found = text;
  }
  if (found.empty()) return {};
  valid = uris == 1 && !trust_domain_of(found).empty() && found.size() <= 2048 && found.find('\0') == std::string::npos;
  return valid ? found : std::string();
}

bool Trust::load(const std::string &ca_file, std::vector<std::string> trust_domains, std::string &error) {
  trust_domains_ = std::move(trust_domains);
  from_file_ = !ca_file.empty();
  if (!from_file_) return true;
  bssl::UniquePtr<BIO> file(BIO_new_file(ca_file.c_str(), "r"));
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
  if (file == nullptr) error = "trusted_ca_file: " + ca_file + " cannot be opened";
  if (file != nullptr && (file_.empty() || !at_end)) {
    error = "trusted_ca_file: " + ca_file + ": certificate " + std::to_string(file_.size() + 1) +
            " is missing or malformed";
  }
  return error.empty();
}

bool Trust::verify(SSL *ssl, const Identity &identity, const char *purpose, uint8_t &alert, std::string &reason) const {
  STACK_OF(X509) *chain = SSL_get_peer_full_cert_chain(ssl);
  if (chain == nullptr || sk_X509_num(chain) == 0) {
    alert = SSL_AD_CERTIFICATE_REQUIRED;
    reason = "peer sent no certificate";
    return false;
  }
  X509 *leaf = sk_X509_value(chain, 0);
  bool valid = true;
  std::string id = spiffe_id(leaf, valid);
  if (!valid) {
    alert = SSL_AD_BAD_CERTIFICATE;
    reason = "peer certificate has a SPIFFE id that is not its only URI";
    return false;
  }
  bssl::UniquePtr<X509_STORE> store(X509_STORE_new());
  bool filled = !from_file_ || fill(store.get(), file_);
  bool any = from_file_;
  for (const TrustBundle &bundle : identity.trust_bundles) {
    bool listed = trust_domains_.empty() ||
                  std::find(trust_domains_.begin(), trust_domains_.end(), bundle.trust_domain) != trust_domains_.end();
    bool fits = bundle.trust_domain.empty() || (!id.empty() && trust_domain_of(id) == bundle.trust_domain);
    if (from_file_ || !listed || !fits) continue;
    filled = filled && fill(store.get(), bundle.authorities);
    any = true;
  }
  if (!any || !filled) {
    alert = SSL_AD_UNKNOWN_CA;
    reason = id.empty() ? "peer certificate has no SPIFFE id, and no trust bundle is bound to no trust domain"
                        : "no trust bundle for " + id;
    return false;
  }
  bssl::UniquePtr<X509_STORE_CTX> context(X509_STORE_CTX_new());
  bool ready = X509_STORE_CTX_init(context.get(), store.get(), leaf, chain) &&
               X509_STORE_CTX_set_default(context.get(), purpose);
  if (ready && X509_verify_cert(context.get()) == 1) return true;
  int error = X509_STORE_CTX_get_error(context.get());
  ERR_clear_error();
  alert = static_cast<uint8_t>(SSL_alert_from_verify_result(error));
  reason =
      std::string("peer certificate") + (id.empty() ? "" : " of " + id) + ": " + X509_verify_cert_error_string(error);
  return false;
}

}  // namespace tls_offload
