#include "envoy_ext/module/spiffe/spiffe_id.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cctype>

namespace tls_offload {
namespace {

constexpr std::string_view kScheme = "spiffe://";
constexpr size_t kIdMax = 2048;
constexpr size_t kTrustDomainMax = 255;

bool digit(char c) {
  return c >= '0' && c <= '9';
}
bool lower_case(char c) {
  return c >= 'a' && c <= 'z';
}
bool upper_case(char c) {
  return c >= 'A' && c <= 'Z';
}
bool mark(char c) {
  return c == '.' || c == '-' || c == '_';
}

bool starts_like_one(std::string_view uri) {
  constexpr std::string_view scheme = "spiffe:";  // schemes are compared without case (RFC 3986, 3.1)
  return uri.size() >= scheme.size() && std::equal(scheme.begin(), scheme.end(), uri.begin(), [](char ours, char its) {
           return ours == std::tolower(static_cast<unsigned char>(its));
         });
}

std::string_view path_fault(std::string_view path) {
  if (path.empty()) return "has no path";
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    std::string_view segment = path.substr(0, path.find('/'));
    path.remove_prefix(segment.size());
    if (segment.empty()) return "has an empty path segment";
    if (segment == "." || segment == "..") return "has a path segment of dots";
    bool good = std::all_of(segment.begin(), segment.end(),
                            [](char c) { return lower_case(c) || upper_case(c) || digit(c) || mark(c); });
    if (!good) return "has an invalid character in its path";
  }
  return {};
}

// The URI with the SPIFFE scheme, not yet validated; with a fault when it is not the only URI.
SvidNames spiffe_uri(const X509 *certificate) {
  SvidNames result;
  int critical = 0;
  bssl::UniquePtr<GENERAL_NAMES> names(
      static_cast<GENERAL_NAMES *>(X509_get_ext_d2i(certificate, NID_subject_alt_name, &critical, nullptr)));
  ERR_clear_error();
  if (names == nullptr && critical != -1) result.fault = "has malformed alternative names";
  size_t uris = 0;
  for (size_t i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); i++) {
    const GENERAL_NAME *name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    uris++;
    const ASN1_IA5STRING *uri = name->d.uniformResourceIdentifier;
    std::string_view text(reinterpret_cast<const char *>(ASN1_STRING_get0_data(uri)),
                          static_cast<size_t>(ASN1_STRING_length(uri)));
    if (starts_like_one(text)) result.id = text;
  }
  if (!result.id.empty() && uris > 1) {
    result.id.clear();
    result.fault = "has a SPIFFE id that is not its only URI";
  }
  return result;
}

}  // namespace

std::string_view spiffe_id_fault(std::string_view text) {
  if (text.size() > kIdMax) return "is longer than 2048 bytes";
  if (text.substr(0, kScheme.size()) != kScheme) return "does not begin with spiffe://";
  std::string_view rest = text.substr(kScheme.size());
  std::string_view domain = rest.substr(0, rest.find('/'));
  if (domain.empty()) return "has no trust domain";
  if (domain.size() > kTrustDomainMax) return "has a trust domain longer than 255 bytes";
  bool good = std::all_of(domain.begin(), domain.end(), [](char c) { return lower_case(c) || digit(c) || mark(c); });
  if (!good) return "has an invalid character in its trust domain";
  return path_fault(rest.substr(domain.size()));
}

std::string_view trust_domain_of(std::string_view id) {
  std::string_view rest = id.substr(kScheme.size());
  return rest.substr(0, rest.find('/'));
}

SvidNames svid_names(const X509 *certificate) {
  SvidNames result = spiffe_uri(certificate);
  if (result.id.empty()) return result;
  if (std::string_view fault = spiffe_id_fault(result.id); !fault.empty()) {
    result.fault = "has a SPIFFE id that " + std::string(fault);
    result.id.clear();
  }
  return result;
}

std::string svid_issuer_fault(const X509 *authority) {
  SvidNames result = spiffe_uri(authority);
  if (result.id.empty()) return result.fault;
  // A trust domain's id is a workload's without the path.
  if (result.id.find('/', kScheme.size()) != std::string::npos) return "has a SPIFFE id with a path";
  std::string_view fault = spiffe_id_fault(result.id + "/x");
  return fault.empty() ? "" : "has a SPIFFE id that " + std::string(fault);
}

std::string_view svid_usage_fault(X509 *leaf) {
  uint32_t flags = X509_get_extension_flags(leaf);
  ERR_clear_error();
  if ((flags & EXFLAG_INVALID) != 0) return "has a malformed extension";
  if ((flags & EXFLAG_CA) != 0) return "is a CA certificate";
  uint32_t usage = X509_get_key_usage(leaf);
  if (usage == UINT32_MAX)
    return {};  // there is no such extension; issuers of SVIDs must set it, but readers need not insist on it
  if ((usage & (X509v3_KU_KEY_CERT_SIGN | X509v3_KU_CRL_SIGN)) != 0) return "may sign certificates or revocation lists";
  if ((usage & X509v3_KU_DIGITAL_SIGNATURE) == 0) return "does not allow digital signatures";
  return {};
}

}  // namespace tls_offload
