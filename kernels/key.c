/* The lifecycle of a private key: read or generated, filled in, tried once, shared by reference, wiped. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/curve25519.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/boringssl_memory.h"
#include "kernels/key_internal.h"
#include "kernels/key_parse.h"
#include "kernels/secret_memory.h"
#include "kernels/stack.h"

enum { FILE_MAX = 64 * 1024 };

static const char no_memory[] =
    "secret memory is exhausted: raise the limit of locked memory (ulimit -l, LimitMEMLOCK= in a systemd unit)";

static const char not_secret[] = "BoringSSL does not take its memory from us here: keys would lie in the open";

static void *fail(char error[KERNEL_ERROR_MAX], const char *reason) {
  snprintf(error, KERNEL_ERROR_MAX, "%s", reason);
  return NULL;
}

/* The backend that keeps data per key of that algorithm, on this host. */
static const kernel_backend *backend_with_area(kernel_algorithm algorithm) {
  const kernel_backend *vector = &kernel_ifma8;
#ifdef TESTING_HOOKS
  if (!vector->usable()) vector = &kernel_ifma8_portable; /* keeps the same data */
#endif
  return vector->prepare != NULL && vector->run[algorithm] != NULL && vector->usable() ? vector : NULL;
}

static void destroy(kernel_key *key) {
  const kernel_backend *vector = backend_with_area(key->algorithm);
  if (vector != NULL && vector->release != NULL) vector->release(key);
  if (key->algorithm <= KERNEL_RSA4096) {
    RSA_free(key->rsa.rsa);
  } else if (key->algorithm != KERNEL_ED25519) {
    EC_KEY_free(key->ec.ec);
  }
  secret_free(key);
}

/* One operation on a constant, in software, where RSA results are checked with the public exponent: this finds primes
 * that are not prime, and makes BoringSSL do now what it would do at the first use. */
static bool works(const kernel_key *key) {
  uint8_t input[KERNEL_OUTPUT_MAX] = {0}, output[KERNEL_OUTPUT_MAX];
  size_t size = kernel_input_size(key->algorithm) != 0 ? kernel_input_size(key->algorithm) : 32;
  input[size - 1] = 2;
  kernel_lane lane = {.key = key, .input = input, .input_size = size, .output = output};
  kernel_software.run[key->algorithm](&lane, 1, NULL);
  return lane.status == KERNEL_OK;
}

static kernel_key *key_from_pkey(const EVP_PKEY *pkey, char error[KERNEL_ERROR_MAX]) {
  kernel_key *key = secret_alloc(sizeof(kernel_key));
  if (key == NULL) return fail(error, no_memory);
  atomic_init(&key->references, 1);
  if (!key_fill(key, pkey, error)) {
    destroy(key);
    return NULL;
  }
  if (!works(key)) {
    destroy(key);
    return fail(error, "the key does not work: its parts do not belong together, or secret memory is exhausted");
  }
  const kernel_backend *vector = backend_with_area(key->algorithm);
  if (vector != NULL && !vector->prepare(key)) {
    destroy(key);
    return fail(error, no_memory);
  }
  return key;
}

static EVP_PKEY *parse(const uint8_t *text, size_t size, char error[KERNEL_ERROR_MAX]) {
  if (!pem_is_there(text, size)) return private_key_from_bare_der(text, size, error);
  uint8_t *der = secret_alloc(size);
  if (der == NULL) return fail(error, no_memory);
  size_t der_size;
  private_key_form form;
  EVP_PKEY *pkey = NULL;
  if (pem_private_key(text, size, der, &der_size, &form, error)) {
    pkey = private_key_from_der(der, der_size, form, error);
  }
  secret_free(der);
  return pkey;
}

kernel_key *kernel_key_parse(const uint8_t *text, size_t size, char error[KERNEL_ERROR_MAX]) {
  if (size == 0) return fail(error, "empty");
  if (size > FILE_MAX) return fail(error, "larger than 64 KiB");
  if (!boringssl_memory_is_secret()) return fail(error, not_secret);
  EVP_PKEY *pkey = parse(text, size, error);
  kernel_key *key = pkey != NULL ? key_from_pkey(pkey, error) : NULL;
  EVP_PKEY_free(pkey);
  wipe_stack_below();
  return key;
}

static void *fail_with_errno(char error[KERNEL_ERROR_MAX], const char *what) {
  snprintf(error, KERNEL_ERROR_MAX, "%s: %s", what, strerror(errno));
  return NULL;
}

/* Reads the whole file into secret memory. read(2) copies straight there; nothing is buffered. */
static uint8_t *read_secret(int descriptor, size_t *size, char error[KERNEL_ERROR_MAX]) {
  struct stat status;
  if (fstat(descriptor, &status) != 0) return fail_with_errno(error, "cannot be examined");
  if (!S_ISREG(status.st_mode)) return fail(error, "not a regular file");
  if (status.st_size > FILE_MAX) return fail(error, "larger than 64 KiB");
  uint8_t *text = secret_alloc(FILE_MAX + 1);
  if (text == NULL) return fail(error, no_memory);
  *size = 0;
  while (*size <= FILE_MAX) {
    ssize_t got = read(descriptor, text + *size, FILE_MAX + 1 - *size);
    if (got == 0) return text;
    if (got < 0 && errno != EINTR) {
      secret_free(text);
      return fail_with_errno(error, "cannot be read");
    }
    if (got > 0) *size += (size_t)got;
  }
  secret_free(text);
  return fail(error, "larger than 64 KiB");
}

kernel_key *kernel_key_read(const char *path, char error[KERNEL_ERROR_MAX]) {
  /* O_NONBLOCK: a FIFO in place of the file is rejected, and must not block. */
  int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) return fail_with_errno(error, "cannot be opened");
  size_t size;
  uint8_t *text = read_secret(descriptor, &size, error);
  close(descriptor);
  if (text == NULL) return NULL;
  kernel_key *key = kernel_key_parse(text, size, error);
  secret_free(text);
  return key;
}

static EVP_PKEY *generate_rsa(unsigned bits) {
  EVP_PKEY *pkey = EVP_PKEY_new();
  RSA *rsa = RSA_new();
  BIGNUM *e = BN_new();
  bool good = pkey != NULL && rsa != NULL && e != NULL && BN_set_word(e, RSA_F4) == 1 &&
              RSA_generate_key_ex(rsa, (int)bits, e, NULL) == 1 && EVP_PKEY_set1_RSA(pkey, rsa) == 1;
  BN_free(e);
  RSA_free(rsa);
  if (good) return pkey;
  EVP_PKEY_free(pkey);
  return NULL;
}

static EVP_PKEY *generate_ec(int curve) {
  EVP_PKEY *pkey = EVP_PKEY_new();
  EC_KEY *ec = EC_KEY_new_by_curve_name(curve);
  bool good = pkey != NULL && ec != NULL && EC_KEY_generate_key(ec) == 1 && EVP_PKEY_set1_EC_KEY(pkey, ec) == 1;
  EC_KEY_free(ec);
  if (good) return pkey;
  EVP_PKEY_free(pkey);
  return NULL;
}

static EVP_PKEY *generate_ed25519(void) {
  uint8_t public_key[32], private_key[64];
  ED25519_keypair(public_key, private_key);
  EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, private_key, 32);
  OPENSSL_cleanse(private_key, sizeof(private_key));
  return pkey;
}

static EVP_PKEY *generate(kernel_algorithm algorithm) {
  switch (algorithm) {
    case KERNEL_RSA2048: return generate_rsa(2048);
    case KERNEL_RSA3072: return generate_rsa(3072);
    case KERNEL_RSA4096: return generate_rsa(4096);
    case KERNEL_P256: return generate_ec(NID_X9_62_prime256v1);
    case KERNEL_P384: return generate_ec(NID_secp384r1);
    case KERNEL_ED25519: return generate_ed25519();
    case KERNEL_ALGORITHMS: break;
  }
  return NULL;
}

kernel_key *kernel_key_generate(kernel_algorithm algorithm, char error[KERNEL_ERROR_MAX]) {
  if (!boringssl_memory_is_secret()) return fail(error, not_secret);
  EVP_PKEY *pkey = generate(algorithm);
  kernel_key *key = NULL;
  if (pkey != NULL) {
    key = key_from_pkey(pkey, error);
  } else {
    ERR_clear_error();
    fail(error, no_memory);
  }
  EVP_PKEY_free(pkey);
  wipe_stack_below();
  return key;
}

kernel_key *kernel_key_retain(const kernel_key *key) {
  kernel_key *shared = (kernel_key *)key;
  atomic_fetch_add_explicit(&shared->references, 1, memory_order_relaxed);
  return shared;
}

void kernel_key_release(kernel_key *key) {
  if (key == NULL || secret_is_lost(key)) return;
  if (atomic_fetch_sub_explicit(&key->references, 1, memory_order_acq_rel) == 1) destroy(key);
}

kernel_algorithm kernel_key_algorithm(const kernel_key *key) {
  return key->algorithm;
}
const uint8_t *kernel_key_id(const kernel_key *key) {
  return key->id;
}

const uint8_t *kernel_key_public(const kernel_key *key, size_t *size) {
  *size = key->spki_size;
  return key->spki;
}
