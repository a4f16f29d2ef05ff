#include "kernels/key_parse.h"

#include <openssl/bn.h>
#include <openssl/bytestring.h>
#include <openssl/curve25519.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>
#include <openssl/sha2.h>
#include <stdio.h>
#include <string.h>

static bool fail(char error[KERNEL_ERROR_MAX], const char *reason) {
  snprintf(error, KERNEL_ERROR_MAX, "%s", reason);
  ERR_clear_error();
  return false;
}

/* BoringSSL's reason is a constant string ("N_NOT_EQUAL_P_Q"), never key material. The first error in its queue is the
 * cause. */
static bool fail_in_library(char error[KERNEL_ERROR_MAX], const char *what) {
  const char *reason = ERR_reason_error_string(ERR_peek_error());
  snprintf(error, KERNEL_ERROR_MAX, "%s (%s)", what, reason != NULL ? reason : "no detail");
  ERR_clear_error();
  return false;
}

static EVP_PKEY *wrap_rsa(RSA *rsa) {
  EVP_PKEY *pkey = rsa != NULL ? EVP_PKEY_new() : NULL;
  if (pkey != NULL && EVP_PKEY_set1_RSA(pkey, rsa) != 1) {
    EVP_PKEY_free(pkey);
    pkey = NULL;
  }
  RSA_free(rsa);
  return pkey;
}

static EVP_PKEY *wrap_ec(EC_KEY *ec) {
  EVP_PKEY *pkey = ec != NULL ? EVP_PKEY_new() : NULL;
  if (pkey != NULL && EVP_PKEY_set1_EC_KEY(pkey, ec) != 1) {
    EVP_PKEY_free(pkey);
    pkey = NULL;
  }
  EC_KEY_free(ec);
  return pkey;
}

EVP_PKEY *private_key_from_der(const uint8_t *der, size_t size, private_key_form form, char error[KERNEL_ERROR_MAX]) {
  static const char *const what[] = {
      [FORM_PKCS8] = "not a usable PKCS#8 private key",
      [FORM_PKCS1] = "not a usable PKCS#1 RSA private key",
      [FORM_SEC1] = "not a usable SEC1 EC private key",
  };
  CBS cbs;
  CBS_init(&cbs, der, size);
  ERR_clear_error();
  EVP_PKEY *pkey = NULL;
  switch (form) {
    case FORM_PKCS8: pkey = EVP_parse_private_key(&cbs); break;
    case FORM_PKCS1: pkey = wrap_rsa(RSA_parse_private_key(&cbs)); break;
    case FORM_SEC1: pkey = wrap_ec(EC_KEY_parse_private_key(&cbs, NULL)); break;
  }
  if (pkey == NULL) {
    fail_in_library(error, what[form]);
  } else if (CBS_len(&cbs) != 0) {
    fail(error, "bytes follow the private key");
    EVP_PKEY_free(pkey);
    pkey = NULL;
  }
  return pkey;
}

EVP_PKEY *private_key_from_bare_der(const uint8_t *der, size_t size, char error[KERNEL_ERROR_MAX]) {
  /* The element after the version is an algorithm, octets or an integer, and determines the form. */
  CBS cbs, sequence;
  CBS_init(&cbs, der, size);
  uint64_t version;
  if (!CBS_get_asn1(&cbs, &sequence, CBS_ASN1_SEQUENCE) || !CBS_get_asn1_uint64(&sequence, &version)) {
    fail(error, "neither PEM nor DER of a private key");
    return NULL;
  }
  private_key_form form = CBS_peek_asn1_tag(&sequence, CBS_ASN1_SEQUENCE)      ? FORM_PKCS8
                          : CBS_peek_asn1_tag(&sequence, CBS_ASN1_OCTETSTRING) ? FORM_SEC1
                                                                               : FORM_PKCS1;
  return private_key_from_der(der, size, form, error);
}

/* Little-endian bytes are little-endian words on all supported machines; this must not compile for others. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are written as bytes");

static bool words_of(uint64_t *words, size_t count, const BIGNUM *number) {
  return number != NULL && BN_bn2le_padded((uint8_t *)words, count * 8, number) == 1;
}

static bool fill_rsa(kernel_key *key, RSA *rsa, char error[KERNEL_ERROR_MAX]) {
  rsa_key_numbers *numbers = &key->rsa;
  unsigned bits = RSA_bits(rsa);
  switch (bits) {
    case 2048: key->algorithm = KERNEL_RSA2048; break;
    case 3072: key->algorithm = KERNEL_RSA3072; break;
    case 4096: key->algorithm = KERNEL_RSA4096; break;
    default:
      snprintf(error, KERNEL_ERROR_MAX, "RSA key of %u bits; 2048, 3072 and 4096 are served", bits);
      return false;
  }
  const BIGNUM *p = RSA_get0_p(rsa), *q = RSA_get0_q(rsa);
  if (p == NULL || q == NULL) return fail(error, "RSA key without its primes");
  if (BN_num_bits(p) != bits / 2 || BN_num_bits(q) != bits / 2) {
    return fail(error, "RSA key whose primes are not both half as long as the modulus");
  }
  if (BN_get_u64(RSA_get0_e(rsa), &numbers->e) != 1) return fail(error, "RSA key with a public exponent over 64 bits");
  numbers->size = bits / 8;
  numbers->words = bits / 64;
  if (!words_of(numbers->n, RSA_WORDS_MAX, RSA_get0_n(rsa)) ||
      BN_bn2bin_padded(numbers->n_bytes, numbers->size, RSA_get0_n(rsa)) != 1 ||
      !words_of(numbers->p, RSA_HALF_WORDS_MAX, p) || !words_of(numbers->q, RSA_HALF_WORDS_MAX, q) ||
      !words_of(numbers->dp, RSA_HALF_WORDS_MAX, RSA_get0_dmp1(rsa)) ||
      !words_of(numbers->dq, RSA_HALF_WORDS_MAX, RSA_get0_dmq1(rsa)) ||
      !words_of(numbers->qinv, RSA_HALF_WORDS_MAX, RSA_get0_iqmp(rsa))) {
    return fail(error, "RSA key without its CRT values");
  }
  RSA_up_ref(rsa);
  numbers->rsa = rsa;
  return true;
}

static bool fill_point(ec_key_numbers *numbers, const EC_KEY *ec) {
  BIGNUM *x = BN_new(), *y = BN_new();
  bool good = x != NULL && y != NULL &&
              EC_POINT_get_affine_coordinates(EC_KEY_get0_group(ec), EC_KEY_get0_public_key(ec), x, y, NULL) == 1 &&
              words_of(numbers->x, EC_WORDS_MAX, x) && words_of(numbers->y, EC_WORDS_MAX, y);
  BN_free(x);
  BN_free(y);
  return good;
}

static bool fill_ec(kernel_key *key, EC_KEY *ec, char error[KERNEL_ERROR_MAX]) {
  ec_key_numbers *numbers = &key->ec;
  switch (EC_GROUP_get_curve_name(EC_KEY_get0_group(ec))) {
    case NID_X9_62_prime256v1:
      key->algorithm = KERNEL_P256;
      numbers->words = 4;
      break;
    case NID_secp384r1:
      key->algorithm = KERNEL_P384;
      numbers->words = 6;
      break;
    default: return fail(error, "EC key on a curve that is not served; P-256 and P-384 are");
  }
  const BIGNUM *d = EC_KEY_get0_private_key(ec);
  if (d == NULL || EC_KEY_check_key(ec) != 1) {
    return fail_in_library(error, "EC key whose private and public halves do not belong together");
  }
  if (!words_of(numbers->d, EC_WORDS_MAX, d) || BN_bn2bin_padded(numbers->d_bytes, numbers->words * 8, d) != 1 ||
      !fill_point(numbers, ec)) {
    return fail_in_library(error, "EC key cannot be read");
  }
  EC_KEY_up_ref(ec);
  numbers->ec = ec;
  return true;
}

static bool fill_ed25519(kernel_key *key, const EVP_PKEY *pkey, char error[KERNEL_ERROR_MAX]) {
  ed25519_key_numbers *numbers = &key->ed25519;
  key->algorithm = KERNEL_ED25519;
  size_t seed_size = 32, public_size = 32;
  if (EVP_PKEY_get_raw_private_key(pkey, numbers->seed_public, &seed_size) != 1 ||
      EVP_PKEY_get_raw_public_key(pkey, numbers->seed_public + 32, &public_size) != 1) {
    return fail_in_library(error, "Ed25519 key cannot be read");
  }
  uint8_t expanded[SHA512_DIGEST_LENGTH];
  SHA512(numbers->seed_public, 32, expanded);
  expanded[0] &= 0xf8; /* RFC 8032, 5.1.5 */
  expanded[31] &= 0x3f;
  expanded[31] |= 0x40;
  memcpy(numbers->scalar, expanded, 32);
  memcpy(numbers->prefix, expanded + 32, 32);
  OPENSSL_cleanse(expanded, sizeof(expanded));
  return true;
}

static bool fill_public(kernel_key *key, const EVP_PKEY *pkey, char error[KERNEL_ERROR_MAX]) {
  CBB cbb;
  size_t size;
  if (!CBB_init_fixed(&cbb, key->spki, sizeof(key->spki)) || !EVP_marshal_public_key(&cbb, pkey) ||
      !CBB_finish(&cbb, NULL, &size)) {
    return fail_in_library(error, "the public key cannot be encoded");
  }
  key->spki_size = (uint32_t)size;
  SHA256(key->spki, size, key->id);
  return true;
}

bool key_fill(kernel_key *key, const EVP_PKEY *pkey, char error[KERNEL_ERROR_MAX]) {
  bool good;
  switch (EVP_PKEY_id(pkey)) {
    case EVP_PKEY_RSA: good = fill_rsa(key, EVP_PKEY_get0_RSA(pkey), error); break;
    case EVP_PKEY_EC: good = fill_ec(key, EVP_PKEY_get0_EC_KEY(pkey), error); break;
    case EVP_PKEY_ED25519: good = fill_ed25519(key, pkey, error); break;
    default: return fail(error, "a private key of a type that is not served; RSA, EC and Ed25519 are");
  }
  return good && fill_public(key, pkey, error);
}
