/* TLS signatures and decryptions over a batch: prepares the kernel's input, runs it, and encodes its output. */
#include "kernels/sign.h"

#include <openssl/mem.h>
#include <openssl/rand.h>
#include <string.h>

#include "kernels/encode/ecdsa_der.h"
#include "kernels/encode/hash.h"
#include "kernels/encode/rsa_blocks.h"
#include "kernels/key.h"
#include "kernels/stack.h"
#include "kernels/workspace_internal.h"

typedef enum encoding { ENCODING_PKCS1, ENCODING_PSS, ENCODING_ECDSA, ENCODING_NONE } encoding;

typedef struct scheme {
  uint16_t code;
  uint8_t encoding;
  uint8_t hash;
} scheme;

static const scheme schemes[] = {
    {SCHEME_RSA_PKCS1_SHA256, ENCODING_PKCS1, HASH_SHA256},  {SCHEME_RSA_PKCS1_SHA384, ENCODING_PKCS1, HASH_SHA384},
    {SCHEME_RSA_PKCS1_SHA512, ENCODING_PKCS1, HASH_SHA512},  {SCHEME_RSA_PSS_SHA256, ENCODING_PSS, HASH_SHA256},
    {SCHEME_RSA_PSS_SHA384, ENCODING_PSS, HASH_SHA384},      {SCHEME_RSA_PSS_SHA512, ENCODING_PSS, HASH_SHA512},
    {SCHEME_ECDSA_P256_SHA256, ENCODING_ECDSA, HASH_SHA256}, {SCHEME_ECDSA_P384_SHA384, ENCODING_ECDSA, HASH_SHA384},
    {SCHEME_ECDSA_P521_SHA512, ENCODING_ECDSA, HASH_SHA512}, {SCHEME_ED25519, ENCODING_NONE, 0},
};

static bool is_rsa(kernel_algorithm algorithm) {
  return algorithm <= KERNEL_RSA4096;
}

/* NULL when the scheme is unknown or for another family of keys. */
static const scheme *scheme_for(uint16_t code, kernel_algorithm algorithm) {
  for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
    if (schemes[i].code != code) continue;
    switch (schemes[i].encoding) {
      case ENCODING_PKCS1:
      case ENCODING_PSS: return is_rsa(algorithm) ? &schemes[i] : NULL;
      case ENCODING_ECDSA: return algorithm == KERNEL_P256 || algorithm == KERNEL_P384 ? &schemes[i] : NULL;
      default: return algorithm == KERNEL_ED25519 ? &schemes[i] : NULL;
    }
  }
  return NULL;
}

bool sign_scheme_fits(uint16_t code, kernel_algorithm algorithm, bool tls12) {
  if (scheme_for(code, algorithm) == NULL) return false;
  if (tls12) return true;
  switch (code) {
    case SCHEME_ECDSA_P256_SHA256: return algorithm == KERNEL_P256;
    case SCHEME_ECDSA_P384_SHA384: return algorithm == KERNEL_P384;
    case SCHEME_ECDSA_P521_SHA512: return false; /* there are no keys of this curve here */
    default: return true;
  }
}

typedef struct work {
  sign_operation *operation;
  const scheme *scheme; /* NULL for a decryption */
} work;

/* Takes the digest's leftmost bytes, or puts zeros in front of it, to get the size of the order (FIPS 186-5, 6.4.1;
 * both orders have whole bytes). */
static void fit_digest(const uint8_t *digest, size_t digest_size, uint8_t *input, size_t size) {
  if (digest_size >= size) {
    memcpy(input, digest, size);
  } else {
    memset(input, 0, size - digest_size);
    memcpy(input + size - digest_size, digest, digest_size);
  }
}

static sign_status prepare_signature(const work *w, kernel_algorithm algorithm, const uint8_t *salt, uint8_t *block,
                                     kernel_lane *lane) {
  const sign_operation *operation = w->operation;
  if (w->scheme->encoding == ENCODING_NONE) {
    if (operation->prehashed) return SIGN_BAD_INPUT; /* Ed25519ph is not a TLS scheme */
    lane->input = operation->input;
    lane->input_size = operation->input_size;
    return SIGN_OK;
  }
  hash_algorithm hash = w->scheme->hash;
  uint8_t computed[HASH_MAX];
  const uint8_t *digest = operation->input;
  if (!operation->prehashed) {
    hash_digest(hash, operation->input, operation->input_size, computed);
    digest = computed;
  } else if (operation->input_size != hash_size(hash)) {
    return SIGN_BAD_INPUT;
  }
  size_t size = kernel_input_size(algorithm);
  switch (w->scheme->encoding) {
    case ENCODING_PKCS1: pkcs1_v15_encode(hash, digest, block, size); break;
    case ENCODING_PSS: pss_encode(hash, digest, salt, block, size); break;
    default: fit_digest(digest, hash_size(hash), block, size);
  }
  lane->input = block;
  lane->input_size = size;
  return SIGN_OK;
}

static sign_status prepare(work *w, kernel_algorithm algorithm, const uint8_t *salt, uint8_t *block,
                           kernel_lane *lane) {
  const sign_operation *operation = w->operation;
  if (operation->key == NULL || kernel_key_algorithm(operation->key) != algorithm) return SIGN_BAD_SCHEME;
  lane->key = operation->key;
  if (operation->decrypt) {
    if (!is_rsa(algorithm)) return SIGN_BAD_SCHEME;
    lane->input = operation->input;
    lane->input_size = operation->input_size;
    return SIGN_OK;
  }
  w->scheme = scheme_for(operation->scheme, algorithm);
  return w->scheme == NULL ? SIGN_BAD_SCHEME : prepare_signature(w, algorithm, salt, block, lane);
}

static sign_status status_of(kernel_status status) {
  switch (status) {
    case KERNEL_OK: return SIGN_OK;
    case KERNEL_BAD_SIZE:
    case KERNEL_BAD_RANGE: return SIGN_BAD_INPUT;
    case KERNEL_BAD_KEY: return SIGN_BAD_SCHEME;
    case KERNEL_FAULT: break;
  }
  return SIGN_FAULT;
}

static void finish(const work *w, const kernel_lane *lane) {
  sign_operation *operation = w->operation;
  operation->status = status_of(lane->status);
  operation->redone = lane->redone;
  if (operation->status != SIGN_OK) return;
  size_t size = kernel_output_size(kernel_key_algorithm(lane->key));
  if (operation->decrypt) {
    pkcs1_unpad_premaster(lane->key, lane->input, lane->output, size, operation->output);
    operation->output_size = PREMASTER_SIZE;
  } else if (w->scheme->encoding == ENCODING_ECDSA) {
    operation->output_size = ecdsa_der_encode(lane->output, size / 2, operation->output);
  } else {
    memcpy(operation->output, lane->output, size);
    operation->output_size = size;
  }
}

void sign_batch(const kernel_backend *backend, kernel_algorithm algorithm, sign_operation *const operations[],
                size_t count, kernel_workspace *workspace) {
  work works[KERNEL_LANES] = {0};
  kernel_lane lanes[KERNEL_LANES] = {0};
  uint8_t salts[KERNEL_LANES][HASH_MAX];
  size_t ready = 0;
  if (is_rsa(algorithm)) RAND_bytes(salts[0], count * HASH_MAX);
  for (size_t i = 0; i < count; i++) {
    sign_operation *operation = operations[i];
    operation->output_size = 0;
    operation->redone = false;
    works[ready].operation = operation;
    lanes[ready].output = workspace->lane_output[ready];
    operation->status = prepare(&works[ready], algorithm, salts[i], workspace->lane_input[ready], &lanes[ready]);
    if (operation->status == SIGN_OK) ready++;
  }
  if (ready == 0) return;
  kernel_batch(backend, algorithm, lanes, ready, workspace);
  bool decrypted = false;
  for (size_t i = 0; i < ready; i++) {
    finish(&works[i], &lanes[i]);
    decrypted |= works[i].operation->decrypt;
  }
  if (decrypted) wipe_stack_below();
  /* The block of a decryption is the premaster secret. */
  OPENSSL_cleanse(workspace->lane_output, ready * KERNEL_OUTPUT_MAX);
}

const char *sign_status_name(sign_status status) {
  switch (status) {
    case SIGN_OK: return "ok";
    case SIGN_BAD_SCHEME: return "bad scheme";
    case SIGN_BAD_INPUT: return "bad input";
    case SIGN_FAULT: return "fault";
  }
  return "unknown";
}
