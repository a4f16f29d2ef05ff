#include "envoy_ext/module/client/identity.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pool.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "envoy_ext/module/client/private_key.h"
#include "envoy_ext/module/envoy/escaped.h"
#include "envoy_ext/module/spiffe/spiffe_id.h"

namespace tls_offload {
namespace {

int ex_index() {
  static const int index = SSL_CREDENTIAL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

std::string lower(wire_view text) {
  std::string result(reinterpret_cast<const char *>(text.data), text.size);
  std::transform(result.begin(), result.end(), result.begin(), [](unsigned char c) { return std::tolower(c); });
  return result;
}

bssl::UniquePtr<X509> parse_certificate(wire_view der) {
  const uint8_t *at = der.data;
  bssl::UniquePtr<X509> certificate(d2i_X509(nullptr, &at, static_cast<long>(der.size)));
  ERR_clear_error();
  if (certificate == nullptr || at != der.data + der.size) return nullptr;
  return certificate;
}

std::string alternative_names(const X509 *leaf) {
  int at = X509_get_ext_by_NID(leaf, NID_subject_alt_name, -1);
  if (at < 0) return {};
  const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(X509_get_ext(leaf, at));
  return {reinterpret_cast<const char *>(ASN1_STRING_get0_data(value)), static_cast<size_t>(ASN1_STRING_length(value))};
}

Identity::NamesDigest digest_of_names(const std::vector<std::unique_ptr<Credential>> &credentials) {
  std::set<std::string_view> distinct;
  for (const auto &credential : credentials) distinct.insert(credential->alternative_names);
  std::string text;
  for (std::string_view names : distinct) text.append(std::to_string(names.size())).append(":").append(names);
  Identity::NamesDigest digest;
  SHA256(reinterpret_cast<const uint8_t *>(text.data()), text.size(), digest.data());
  return digest;
}

bool set_chain(Credential &into, wire_view reader, std::string &error) {
  std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> owned;
  std::vector<CRYPTO_BUFFER *> chain;
  wire_view der;
  while (wire_next_certificate(&reader, &der)) {
    if (chain.empty()) {
      auto leaf = parse_certificate(der);
      bssl::UniquePtr<EVP_PKEY> key(leaf ? X509_get_pubkey(leaf.get()) : nullptr);
      if (key == nullptr) {
        error = "its leaf certificate cannot be parsed";
        return false;
      }
      into.key_type = EVP_PKEY_id(key.get());
      into.alternative_names = alternative_names(leaf.get());
      into.spiffe_id = svid_names(leaf.get()).id;
    }
    owned.emplace_back(CRYPTO_BUFFER_new(der.data, der.size, nullptr));
    chain.push_back(owned.back().get());
  }
  if (chain.empty()) {
    error = "it has no certificate";
    return false;
  }
  if (!SSL_CREDENTIAL_set1_cert_chain(into.credential.get(), chain.data(), chain.size())) {
    ERR_clear_error();
    error = "BoringSSL does not accept its certificate chain";
    return false;
  }
  return true;
}

bool set_schemes(Credential &into, wire_scheme_reader reader, std::string &error) {
  std::vector<uint16_t> schemes;
  uint32_t scheme;
  while (wire_next_scheme(&reader, &scheme)) {
    if (scheme <= UINT16_MAX) schemes.push_back(static_cast<uint16_t>(scheme));
  }
  if (schemes.empty() ||
      !SSL_CREDENTIAL_set1_signing_algorithm_prefs(into.credential.get(), schemes.data(), schemes.size())) {
    ERR_clear_error();
    error = "it has no usable signature scheme";
    return false;
  }
  return true;
}

std::unique_ptr<Credential> make_credential(const wire_credential &wire, std::string &error) {
  auto result = std::make_unique<Credential>();
  result->credential.reset(SSL_CREDENTIAL_new_x509());
  if (wire.key_id.size != WIRE_KEY_ID_SIZE) {
    error = "its key id is not 32 bytes";
    return nullptr;
  }
  std::copy_n(wire.key_id.data, WIRE_KEY_ID_SIZE, result->key_id.begin());
  result->tls12 = wire.tls12;
  result->not_after = wire.not_after;
  wire_view reader = wire.dns_names, name;
  while (wire_next_dns_name(&reader, &name)) result->dns_names.push_back(lower(name));
  SSL_CREDENTIAL *credential = result->credential.get();
  if (!set_chain(*result, wire.chain, error) || !set_schemes(*result, wire.schemes, error)) return nullptr;
  if (!SSL_CREDENTIAL_set_private_key_method(credential, &remote_private_key) ||
      !SSL_CREDENTIAL_set_ex_data(credential, ex_index(), result.get())) {
    ERR_clear_error();
    error = "BoringSSL does not accept it";
    return nullptr;
  }
  return result;
}

// Hashes each part with its length, so that no two different lists have the same digest.
void hash_part(SHA256_CTX &hash, wire_view part) {
  uint64_t size = part.size;
  SHA256_Update(&hash, &size, sizeof size);
  SHA256_Update(&hash, part.data, part.size);
}

bool add_bundle(Identity &identity, const wire_trust_bundle &wire, SHA256_CTX &hash, std::string &error) {
  TrustBundle bundle;
  bundle.trust_domain = lower(wire.trust_domain);
  hash_part(hash, wire.trust_domain);
  wire_view reader = wire.authorities, der;
  while (wire_next_authority(&reader, &der)) {
    hash_part(hash, der);
    bundle.authorities.push_back(parse_certificate(der));
    if (bundle.authorities.back() == nullptr) {
      error = "trust bundle '" + escaped(bundle.trust_domain) + "': a CA certificate cannot be parsed";
      return false;
    }
  }
  hash_part(hash, {});
  identity.trust_bundles.push_back(std::move(bundle));
  return true;
}

}  // namespace

const Credential *credential_of(const SSL_CREDENTIAL *credential) {
  return credential ? static_cast<const Credential *>(SSL_CREDENTIAL_get_ex_data(credential, ex_index())) : nullptr;
}

Credential::Match Credential::match(std::string_view server_name) const {
  Match best = Match::None;
  auto dot = server_name.find('.');
  for (const std::string &name : dns_names) {
    if (name == server_name) return Match::Exact;
    // A wildcard stands for exactly one label, the leftmost (RFC 6125, 6.4.3).
    if (dot != std::string_view::npos && dot > 0 && name.size() > 2 && name[0] == '*' && name[1] == '.' &&
        std::string_view(name).substr(1) == server_name.substr(dot)) {
      best = Match::Wildcard;
    }
  }
  return best;
}

bool Identity::any_tls12() const {
  return std::any_of(credentials.begin(), credentials.end(), [](const auto &c) { return c->tls12; });
}

const std::string &Identity::spiffe_id() const {
  static const std::string none;
  auto found =
      std::find_if(credentials.begin(), credentials.end(), [](const auto &c) { return !c->spiffe_id.empty(); });
  return found != credentials.end() ? (*found)->spiffe_id : none;
}

std::shared_ptr<const Identity> Identity::decode(wire_view message, std::string &error) {
  wire_identity wire;
  if (wire_decode_identity(message, &wire) != WIRE_OK) {
    error = "malformed Identity message";
    return nullptr;
  }
  auto identity = std::make_shared<Identity>();
  identity->name.assign(reinterpret_cast<const char *>(wire.name.data), wire.name.size);
  identity->version = wire.version;
  wire_credential credential;
  while (wire_next_credential(&wire.credentials, &credential)) {
    auto made = make_credential(credential, error);
    if (made == nullptr) {
      error = "credential " + std::to_string(identity->credentials.size()) + ": " + error;
      return nullptr;
    }
    identity->credentials.push_back(std::move(made));
  }
  std::stable_partition(identity->credentials.begin(), identity->credentials.end(),
                        [](const auto &c) { return c->key_type != EVP_PKEY_RSA; });
  wire_trust_bundle bundle;
  SHA256_CTX hash;
  SHA256_Init(&hash);
  while (wire_next_trust_bundle(&wire.trust_bundles, &bundle)) {
    if (!add_bundle(*identity, bundle, hash, error)) return nullptr;
  }
  SHA256_Final(identity->bundles_digest.data(), &hash);
  if (identity->credentials.empty()) {
    error = "it has no credential";
    return nullptr;
  }
  identity->names = digest_of_names(identity->credentials);
  return identity;
}

}  // namespace tls_offload
