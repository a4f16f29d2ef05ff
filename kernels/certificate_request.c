#include "certificate_request.h"

#include <openssl/bytestring.h>
#include <openssl/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sign.h"

enum { NAMES_SIZE_MAX = 32 * 1024, TAG_DNS = CBS_ASN1_CONTEXT_SPECIFIC | 2, TAG_URI = CBS_ASN1_CONTEXT_SPECIFIC | 6 };

static const uint8_t oid_extension_request[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e};
static const uint8_t oid_subject_alt_name[] = {0x55, 0x1d, 0x11};

/* How each kind of key signs its request: the TLS scheme with the same computation, and the AlgorithmIdentifier. */
typedef struct request_algorithm {
  uint16_t scheme;
  uint8_t identifier[15];
  uint8_t size;
} request_algorithm;

static const request_algorithm rsa_sha256 = {
    SCHEME_RSA_PKCS1_SHA256,
    {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00},
    15};
static const request_algorithm ecdsa_sha256 = {
    SCHEME_ECDSA_P256_SHA256, {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02}, 12};
static const request_algorithm ecdsa_sha384 = {
    SCHEME_ECDSA_P384_SHA384, {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03}, 12};
static const request_algorithm ed25519 = {SCHEME_ED25519, {0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70}, 7};

static const request_algorithm *algorithm_of(const kernel_key *key) {
  switch (kernel_key_algorithm(key)) {
    case KERNEL_P256: return &ecdsa_sha256;
    case KERNEL_P384: return &ecdsa_sha384;
    case KERNEL_ED25519: return &ed25519;
    default: return &rsa_sha256;
  }
}

static bool fail(char error[KERNEL_ERROR_MAX], const char *reason) {
  snprintf(error, KERNEL_ERROR_MAX, "%s", reason);
  return false;
}

/* An IA5String holds only ASCII, and a name with a control character is always a mistake. */
static bool is_name(const char *name) {
  for (const char *at = name; *at != 0; at++) {
    if (*at <= 0x20 || *at >= 0x7f) return false;
  }
  return *name != 0;
}

static bool check_names(const certificate_request_names *names, char error[KERNEL_ERROR_MAX]) {
  size_t size = 0;
  for (size_t i = 0; i < names->uri_count + names->dns_name_count; i++) {
    const char *name = i < names->uri_count ? names->uris[i] : names->dns_names[i - names->uri_count];
    if (!is_name(name)) return fail(error, "a name is empty or has a character that is not printable ASCII");
    size += strlen(name);
  }
  if (size == 0) return fail(error, "a certificate request needs at least one name");
  return size <= NAMES_SIZE_MAX || fail(error, "the names are larger than 32 KiB");
}

static bool add_names(CBB *to, const char *const *names, size_t count, CBS_ASN1_TAG tag) {
  for (size_t i = 0; i < count; i++) {
    CBB name;
    if (!CBB_add_asn1(to, &name, tag) || !CBB_add_bytes(&name, (const uint8_t *)names[i], strlen(names[i])) ||
        !CBB_flush(to)) {
      return false;
    }
  }
  return true;
}

/* attributes [0] has one attribute, extensionRequest, with one extension, subjectAltName, which is critical because the
 * subject is empty (RFC 5280, 4.2.1.6). */
static bool add_attributes(CBB *info, const certificate_request_names *names) {
  CBB attributes, attribute, oid, values, extensions, extension, value, list;
  return CBB_add_asn1(info, &attributes, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0) &&
         CBB_add_asn1(&attributes, &attribute, CBS_ASN1_SEQUENCE) && CBB_add_asn1(&attribute, &oid, CBS_ASN1_OBJECT) &&
         CBB_add_bytes(&oid, oid_extension_request, sizeof oid_extension_request) &&
         CBB_add_asn1(&attribute, &values, CBS_ASN1_SET) && CBB_add_asn1(&values, &extensions, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&extensions, &extension, CBS_ASN1_SEQUENCE) && CBB_add_asn1(&extension, &oid, CBS_ASN1_OBJECT) &&
         CBB_add_bytes(&oid, oid_subject_alt_name, sizeof oid_subject_alt_name) && CBB_add_asn1_bool(&extension, 1) &&
         CBB_add_asn1(&extension, &value, CBS_ASN1_OCTETSTRING) && CBB_add_asn1(&value, &list, CBS_ASN1_SEQUENCE) &&
         add_names(&list, names->uris, names->uri_count, TAG_URI) &&
         add_names(&list, names->dns_names, names->dns_name_count, TAG_DNS) && CBB_flush(info);
}

/* CertificationRequestInfo: version 0, an empty subject, the public key, the names. */
static bool make_info(const kernel_key *key, const certificate_request_names *names, uint8_t **info, size_t *size) {
  size_t spki_size;
  const uint8_t *spki = kernel_key_public(key, &spki_size);
  CBB all, sequence, subject;
  bool made = CBB_init(&all, 1024) && CBB_add_asn1(&all, &sequence, CBS_ASN1_SEQUENCE) &&
              CBB_add_asn1_uint64(&sequence, 0) && CBB_add_asn1(&sequence, &subject, CBS_ASN1_SEQUENCE) &&
              CBB_add_bytes(&sequence, spki, spki_size) && add_attributes(&sequence, names) &&
              CBB_finish(&all, info, size);
  if (!made) CBB_cleanup(&all);
  return made;
}

static bool sign_info(const kernel_key *key, uint16_t scheme, const uint8_t *info, size_t size, sign_operation *made) {
  kernel_workspace *workspace = kernel_workspace_new();
  if (workspace == NULL) return false;
  *made = (sign_operation){.key = key, .scheme = scheme, .input = info, .input_size = size};
  sign_batch(&kernel_software, kernel_key_algorithm(key), &made, 1, workspace);
  kernel_workspace_free(workspace);
  return made->status == SIGN_OK;
}

static bool assemble(const request_algorithm *algorithm, const uint8_t *info, size_t info_size,
                     const sign_operation *made, uint8_t **request, size_t *size) {
  CBB all, sequence, signature;
  bool done = CBB_init(&all, info_size + made->output_size + 64) && CBB_add_asn1(&all, &sequence, CBS_ASN1_SEQUENCE) &&
              CBB_add_bytes(&sequence, info, info_size) &&
              CBB_add_bytes(&sequence, algorithm->identifier, algorithm->size) &&
              CBB_add_asn1(&sequence, &signature, CBS_ASN1_BITSTRING) && CBB_add_u8(&signature, 0) &&
              CBB_add_bytes(&signature, made->output, made->output_size) && CBB_finish(&all, request, size);
  if (!done) CBB_cleanup(&all);
  return done;
}

bool certificate_request_make(const kernel_key *key, const certificate_request_names *names, uint8_t **request,
                              size_t *size, char error[KERNEL_ERROR_MAX]) {
  if (!check_names(names, error)) return false;
  const request_algorithm *algorithm = algorithm_of(key);
  uint8_t *info = NULL;
  size_t info_size;
  sign_operation made;
  if (!make_info(key, names, &info, &info_size)) return fail(error, "out of memory");
  bool signed_ = sign_info(key, algorithm->scheme, info, info_size, &made);
  bool done = signed_ && assemble(algorithm, info, info_size, &made, request, size);
  OPENSSL_free(info);
  return done || fail(error, signed_ ? "out of memory" : "the key could not sign the request");
}

void certificate_request_free(uint8_t *request) {
  OPENSSL_free(request);
}
