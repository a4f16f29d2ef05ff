// The keys that keyload asks the daemon for, seen from outside: their id, their scheme, their public part.
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

// Each ends the program with status 2 and the reason. `scheme` 0: the usual one of the key's type.
LoadKey key_of_certificate(const char *path, uint16_t scheme);
LoadKey key_of_id(const char *hex, uint16_t scheme);
uint16_t scheme_by_name(const char *text);

// What a TLS 1.3 server signs (RFC 8446, 4.4.3), over a random transcript hash of 32 bytes.
void make_certificate_verify(std::vector<uint8_t> &input);

bool verify(const LoadKey &key, const std::vector<uint8_t> &input, const uint8_t *signature, size_t size);

}  // namespace load
