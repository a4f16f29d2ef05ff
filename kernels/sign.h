/* TLS signatures and decryption over batches: hash and encode (encode/), run a kernel, encode the result.
 *
 * All backends share this layer. It knows TLS SignatureSchemes; kernels do not.
 */
#ifndef KERNELS_SIGN_H
#define KERNELS_SIGN_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The supported TLS SignatureScheme code points (RFC 8446, 4.2.3). */
enum {
  SCHEME_RSA_PKCS1_SHA256 = 0x0401,
  SCHEME_RSA_PKCS1_SHA384 = 0x0501,
  SCHEME_RSA_PKCS1_SHA512 = 0x0601,
  SCHEME_ECDSA_P256_SHA256 = 0x0403,
  SCHEME_ECDSA_P384_SHA384 = 0x0503,
  SCHEME_ECDSA_P521_SHA512 = 0x0603, /* in TLS 1.2: ECDSA with SHA-512, of any curve */
  SCHEME_RSA_PSS_SHA256 = 0x0804,
  SCHEME_RSA_PSS_SHA384 = 0x0805,
  SCHEME_RSA_PSS_SHA512 = 0x0806,
  SCHEME_ED25519 = 0x0807,
};

enum { SIGN_OUTPUT_MAX = KERNEL_OUTPUT_MAX };

typedef enum sign_status {
  SIGN_OK = 0,
  SIGN_BAD_SCHEME, /* unknown, or does not fit the key */
  SIGN_BAD_INPUT,  /* wrong size of a digest or ciphertext, ciphertext not below the modulus, prehashed Ed25519 */
  SIGN_FAULT,      /* every backend failed */
} sign_status;

typedef struct sign_operation {
  const kernel_key *key;
  uint16_t scheme;
  bool decrypt;   /* RSA PKCS#1 v1.5 decryption to a 48-byte premaster secret; `scheme` is ignored */
  bool prehashed; /* `input` is the scheme's digest */
  const uint8_t *input;
  size_t input_size;
  uint8_t output[SIGN_OUTPUT_MAX];
  size_t output_size; /* out; 0 unless status is SIGN_OK */
  sign_status status; /* out */
  bool redone;        /* out: see kernel_lane */
} sign_operation;

/* Whether the scheme exists and fits a key of that algorithm. In TLS 1.2 an ECDSA scheme names only the hash, so
 * `tls12` also lets P-256 and P-384 sign with the other's hash and with SHA-512. */
bool sign_scheme_fits(uint16_t scheme, kernel_algorithm algorithm, bool tls12);

/* Runs up to KERNEL_LANES operations whose keys all have `algorithm` (signing and decryption may be mixed). ECDSA
 * schemes determine only the hash; whether a pairing of curve and hash is allowed is the caller's policy. */
void sign_batch(const kernel_backend *backend, kernel_algorithm algorithm, sign_operation *const operations[],
                size_t count, kernel_workspace *workspace);

const char *sign_status_name(sign_status status);

#ifdef __cplusplus
}
#endif
#endif
