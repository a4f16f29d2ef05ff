#include "benchmarks/native/keyload/keys.h"

#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>

#include <cstdlib>
#include <cstring>

#include "benchmarks/native/argument.h"

namespace load {
namespace {

uint16_t usual_scheme(const EVP_PKEY *key) {
  switch (EVP_PKEY_id(key)) {
    case EVP_PKEY_RSA: return SSL_SIGN_RSA_PSS_RSAE_SHA256;
    case EVP_PKEY_ED25519: return SSL_SIGN_ED25519;
    case EVP_PKEY_EC:
      return EVP_PKEY_bits(key) > 256 ? SSL_SIGN_ECDSA_SECP384R1_SHA384 : SSL_SIGN_ECDSA_SECP256R1_SHA256;
    default: return 0;
  }
}

}  // namespace

uint16_t scheme_by_name(const char *text) {
  for (unsigned candidate = 0x0401; candidate <= 0x080b; candidate++)
    if (const char *name = SSL_get_signature_algorithm_name(uint16_t(candidate), 1); name && !strcmp(name, text))
      return uint16_t(candidate);
  return uint16_t(whole_number("scheme", text, 1, 0xffff));
}

LoadKey key_of_certificate(const char *path, uint16_t scheme) {
  bssl::UniquePtr<BIO> file(BIO_new_file(path, "r"));
  bssl::UniquePtr<X509> certificate(file ? PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr) : nullptr);
  LoadKey key{};
  if (certificate) key.public_key.reset(X509_get_pubkey(certificate.get()));
  if (!key.public_key) usage_error(std::string("--certificate ") + path + ": no readable PEM certificate");
  uint8_t *der = nullptr;
  int size = i2d_PUBKEY(key.public_key.get(), &der);
  if (size <= 0) usage_error(std::string("--certificate ") + path + ": its public key cannot be encoded");
  SHA256(der, size_t(size), key.id.data());
  OPENSSL_free(der);
  key.scheme = scheme ? scheme : usual_scheme(key.public_key.get());
  if (!key.scheme) usage_error(std::string("--certificate ") + path + ": unknown type of key, --scheme is wanted");
  return key;
}

LoadKey key_of_id(const char *hex, uint16_t scheme) {
  LoadKey key{};
  if (!scheme) usage_error("--key-id needs --scheme before it");
  key.scheme = scheme;
  if (strlen(hex) != 64 || strspn(hex, "0123456789abcdefABCDEF") != 64)
    usage_error(std::string("--key-id is '") + hex + "', wanted are 64 hex digits");
  for (size_t i = 0; i < key.id.size(); i++)
    key.id[i] = uint8_t(strtoul(std::string(hex + 2 * i, 2).c_str(), nullptr, 16));
  return key;
}

void make_certificate_verify(std::vector<uint8_t> &input) {
  static const char context[] = "TLS 1.3, server CertificateVerify";  // signed with its closing zero
  constexpr size_t padding = 64, hash = 32;
  input.resize(padding + sizeof context + hash);
  memset(input.data(), ' ', padding);
  memcpy(input.data() + padding, context, sizeof context);
  RAND_bytes(input.data() + padding + sizeof context, hash);
}

bool verify(const LoadKey &key, const std::vector<uint8_t> &input, const uint8_t *signature, size_t size) {
  bssl::ScopedEVP_MD_CTX context;
  EVP_PKEY_CTX *padding = nullptr;
  const EVP_MD *digest = SSL_get_signature_algorithm_digest(key.scheme);
  bool valid = EVP_DigestVerifyInit(context.get(), &padding, digest, nullptr, key.public_key.get());
  if (valid && SSL_is_signature_algorithm_rsa_pss(key.scheme))
    valid = EVP_PKEY_CTX_set_rsa_padding(padding, RSA_PKCS1_PSS_PADDING) &&
            EVP_PKEY_CTX_set_rsa_pss_saltlen(padding, RSA_PSS_SALTLEN_DIGEST);
  valid = valid && EVP_DigestVerify(context.get(), signature, size, input.data(), input.size());
  ERR_clear_error();
  return valid;
}

}  // namespace load
