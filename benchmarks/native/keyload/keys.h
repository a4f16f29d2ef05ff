// The public view of the keys that keyload uses: their ids, schemes and public keys.
#pragma once

#include <openssl/base.h>
#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace load {

struct LoadKey {
  std::array<uint8_t, 32> id;            // SHA-256 of the SubjectPublicKeyInfo
  uint16_t scheme;                       // TLS SignatureScheme
  bssl::UniquePtr<EVP_PKEY> public_key;  // null when only the id is known
};

// On failure, each ends the program with status 2 and the reason. With `scheme` 0, the usual one for the key's type is
// used.
LoadKey key_of_certificate(const char *path, uint16_t scheme);
LoadKey key_of_id(const char *hex, uint16_t scheme);
uint16_t scheme_by_name(const char *text);

// What a TLS 1.3 server signs (RFC 8446, 4.4.3), over a random transcript hash of 32 bytes.
void make_certificate_verify(std::vector<uint8_t> &input);

bool verify(const LoadKey &key, const std::vector<uint8_t> &input, const uint8_t *signature, size_t size);

}  // namespace load
