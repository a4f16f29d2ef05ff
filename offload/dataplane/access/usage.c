#include "offload/dataplane/access/usage.h"

#include <string.h>

#include "kernels/sign.h"

enum {
  PADDING_SIZE = 64,
  RANDOMS_SIZE = 64,    /* client random and server random */
  CURVE_HEADER_SIZE = 4 /* curve type, named curve in 2 bytes, size of the point */
};

bool usage_is_tls13_input(const uint8_t *input, size_t size) {
  static const char server[] = "TLS 1.3, server CertificateVerify";
  static const char client[] = "TLS 1.3, client CertificateVerify";
  enum { CONTEXT_SIZE = sizeof server, HASH_AT = PADDING_SIZE + CONTEXT_SIZE }; /* the zero byte is the string's own */
  _Static_assert(sizeof server == sizeof client, "both contexts have the same size");

  if (size != HASH_AT + 32 && size != HASH_AT + 48) return false;
  for (size_t i = 0; i < PADDING_SIZE; i++) {
    if (input[i] != 0x20) return false;
  }
  return memcmp(input + PADDING_SIZE, server, CONTEXT_SIZE) == 0 ||
         memcmp(input + PADDING_SIZE, client, CONTEXT_SIZE) == 0;
}

static bool is_server_key_exchange(const uint8_t *input, size_t size) {
  static const struct {
    uint16_t curve;
    uint8_t point_size;
    bool uncompressed; /* begins with 4 */
  } curves[] = {
      {23, 65, true},  /* secp256r1 */
      {24, 97, true},  /* secp384r1 */
      {25, 133, true}, /* secp521r1 */
      {29, 32, false}, /* x25519 */
      {30, 56, false}, /* x448 */
  };
  if (size <= RANDOMS_SIZE + CURVE_HEADER_SIZE) return false;
  const uint8_t *params = input + RANDOMS_SIZE;
  const uint8_t *point = params + CURVE_HEADER_SIZE;
  uint16_t curve = (uint16_t)(params[1] << 8 | params[2]);
  if (params[0] != 3) return false; /* named_curve */
  for (size_t i = 0; i < sizeof curves / sizeof *curves; i++) {
    if (curves[i].curve != curve) continue;
    return params[3] == curves[i].point_size && size == (size_t)RANDOMS_SIZE + CURVE_HEADER_SIZE + params[3] &&
           (!curves[i].uncompressed || point[0] == 4);
  }
  return false;
}

/* Handshake types that may occur between ServerHello and the client's CertificateVerify. */
static bool occurs_in_transcript(uint8_t type) {
  switch (type) {
    case 11: /* Certificate, of the server and of the client */
    case 12: /* ServerKeyExchange */
    case 13: /* CertificateRequest */
    case 14: /* ServerHelloDone */
    case 16: /* ClientKeyExchange */
    case 22: /* CertificateStatus */ return true;
    default: return false;
  }
}

static bool is_client_transcript(const uint8_t *input, size_t size) {
  enum { CLIENT_HELLO = 1, SERVER_HELLO = 2, CLIENT_KEY_EXCHANGE = 16, HEADER_SIZE = 4 };
  uint8_t last = 0;
  for (size_t number = 0; size > 0; number++) {
    if (size < HEADER_SIZE) return false;
    size_t length = (size_t)input[1] << 16 | (size_t)input[2] << 8 | input[3];
    if (length > size - HEADER_SIZE) return false;
    last = input[0];
    bool expected = number == 0   ? last == CLIENT_HELLO
                    : number == 1 ? last == SERVER_HELLO
                                  : occurs_in_transcript(last);
    if (!expected) return false;
    input += HEADER_SIZE + length;
    size -= HEADER_SIZE + length;
  }
  return last == CLIENT_KEY_EXCHANGE;
}

bool usage_is_tls12_input(const uint8_t *input, size_t size) {
  return is_server_key_exchange(input, size) || is_client_transcript(input, size);
}

static bool is_pkcs1(uint16_t scheme) {
  return scheme == SCHEME_RSA_PKCS1_SHA256 || scheme == SCHEME_RSA_PKCS1_SHA384 || scheme == SCHEME_RSA_PKCS1_SHA512;
}

bool usage_allows(key_usage usage, uint16_t scheme, kernel_algorithm algorithm, bool prehashed, const uint8_t *input,
                  size_t size) {
  if (usage == USAGE_ANY) return true;
  if (prehashed) return false;
  if (usage_is_tls13_input(input, size)) return !is_pkcs1(scheme) && sign_scheme_fits(scheme, algorithm, false);
  return usage == USAGE_TLS12_AND_13 && usage_is_tls12_input(input, size);
}
