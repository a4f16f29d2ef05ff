// libFuzzer target for what the Envoy module reads from a peer's certificate: SPIFFE ids, alternative names, key usage.
//
// The first byte chooses: the text of an id; the content of a subjectAltName extension in an otherwise valid
// certificate; a whole certificate. Whatever the bytes are, nothing crashes, and anything accepted as an id is a valid
// one.
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stddef.h>
#include <stdint.h>

#include <cassert>
#include <string>
#include <string_view>

#include "envoy_ext/module/spiffe/spiffe_id.h"
#include "envoy_ext/module/spiffe/spiffe_match.h"

using namespace tls_offload;

namespace {

void check_id(std::string_view id) {
  assert(spiffe_id_fault(id).empty());
  assert(id.size() <= 2048 && id.substr(0, 9) == "spiffe://");
  std::string_view domain = trust_domain_of(id);
  assert(!domain.empty() && domain.size() <= 255);
  assert(domain.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.-_") == std::string_view::npos);
  // No character of it has a special meaning in a URI, a header, a log line or a quoted string.
  assert(id.substr(9).find_first_of(std::string_view(":@?#%;,=\"' \r\n\0\\", 15)) == std::string_view::npos);
  // It is in its trust domain, and in no other that begins or ends alike.
  std::string whole = "spiffe://" + std::string(domain);
  assert((SpiffeMatch{SpiffeMatch::Kind::Prefix, whole}.matches(id)));
  assert((!SpiffeMatch{SpiffeMatch::Kind::Prefix, whole.substr(0, whole.size() - 1)}.matches(id)) ||
         domain.size() == 1);
}

void check_text(std::string_view text) {
  if (spiffe_id_fault(text).empty()) check_id(text);
  SpiffeMatch exact{SpiffeMatch::Kind::Exact, "spiffe://mesh.example/ns/shop"};
  assert(exact.matches(text) == (text == exact.value));
}

void check_certificate(X509 *certificate) {
  SvidNames names = svid_names(certificate);
  assert(names.id.empty() || names.fault.empty());
  if (!names.id.empty()) check_id(names.id);
  svid_usage_fault(certificate);
  assert(ERR_peek_error() == 0);  // no error is left for the next call of BoringSSL
  svid_issuer_fault(certificate);
  assert(ERR_peek_error() == 0);
}

void check_alternative_names(const uint8_t *data, size_t size) {
  bssl::UniquePtr<X509> certificate(X509_new());
  bssl::UniquePtr<ASN1_OCTET_STRING> content(ASN1_OCTET_STRING_new());
  assert(ASN1_STRING_set(content.get(), data, static_cast<ossl_ssize_t>(size)));
  bssl::UniquePtr<X509_EXTENSION> extension(
      X509_EXTENSION_create_by_NID(nullptr, NID_subject_alt_name, 0, content.get()));
  assert(extension != nullptr && X509_add_ext(certificate.get(), extension.get(), -1));
  svid_names(certificate.get());
  SvidNames names = svid_names(certificate.get());
  assert(names.id.empty() || names.fault.empty());
  if (!names.id.empty()) check_id(names.id);
  svid_issuer_fault(certificate.get());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  const uint8_t *at = data + 1;
  switch (data[0] % 3) {
    case 0: check_text({reinterpret_cast<const char *>(at), size - 1}); break;
    case 1: check_alternative_names(at, size - 1); break;
    default:
      bssl::UniquePtr<X509> certificate(d2i_X509(nullptr, &at, static_cast<long>(size - 1)));
      ERR_clear_error();
      if (certificate != nullptr) check_certificate(certificate.get());
  }
  return 0;
}
