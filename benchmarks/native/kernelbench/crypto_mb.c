/* Intel's crypto_mb, timed; see kernelbench.h. Its prototypes are declared here, because its headers are not installed
 * with its library. */
#include <alloca.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/native/kernelbench/internal.h"

typedef const void *rsa_method(int bits);
typedef int rsa_scratch_size(const void *method);
typedef uint32_t rsa_private(const uint8_t *const from[8], uint8_t *const to[8], const uint64_t *const p[8],
                             const uint64_t *const q[8], const uint64_t *const dp[8], const uint64_t *const dq[8],
                             const uint64_t *const qinv[8], int bits, const void *method, uint8_t *scratch);
typedef uint32_t ecdsa_sign(uint8_t *r[8], uint8_t *s[8], const uint8_t *const digest[8],
                            const uint64_t *const nonce[8], const uint64_t *const key[8], uint8_t *scratch);
typedef uint32_t ed25519_sign(uint8_t *r[8], uint8_t *s[8], const uint8_t *const message[8], const uint32_t size[8],
                              const uint8_t *const key[8], const uint8_t *const public_key[8]);

/* The call that is timed. */
typedef struct call {
  const kernelbench *bench;
  void *function;
  const void *method;
  const void *in[8][8]; /* [parameter][lane] */
  uint32_t sizes[8];
} call;

static uint32_t run(const call *c) {
  kernelbench *bench = (kernelbench *)c->bench;
  uint8_t *to[8], *second[8];
  size_t half = kernel_output_size(bench->algorithm) / 2;
  for (int i = 0; i < 8; i++) {
    to[i] = bench->output[i];
    second[i] = bench->output[i] + half;
  }
#define IN(parameter, type) ((const type *const *)c->in[parameter])
  switch (bench->algorithm) {
    case KERNEL_P256:
    case KERNEL_P384:
      return ((ecdsa_sign *)c->function)(to, second, IN(0, uint8_t), IN(1, uint64_t), IN(2, uint64_t), NULL);
    case KERNEL_ED25519:
      return ((ed25519_sign *)c->function)(to, second, IN(0, uint8_t), c->sizes, IN(1, uint8_t), IN(2, uint8_t));
    default:
      return ((rsa_private *)c->function)(IN(0, uint8_t), to, IN(1, uint64_t), IN(2, uint64_t), IN(3, uint64_t),
                                          IN(4, uint64_t), IN(5, uint64_t), (int)bench->keys[0]->rsa.size * 8,
                                          c->method, bench->intel_scratch);
  }
}

__attribute__((noinline)) static int64_t timed_below(unsigned shift, const call *c, unsigned repeats) {
  volatile char *pad = alloca(shift + 16);
  pad[0] = 0;
  int64_t best = INT64_MAX;
  for (unsigned turn = 0; turn < repeats; turn++) {
    int64_t start = nanoseconds();
    uint32_t status = run(c);
    int64_t time = nanoseconds() - start;
    if (status != 0) return BENCH_FAILED;
    if (time < best) best = time;
  }
  return best;
}

static bool prepare(kernelbench *bench, const char *library, call *c) {
  static const char *const names[KERNEL_ALGORITHMS] = {"mbx_rsa_private_crt_mb8",     "mbx_rsa_private_crt_mb8",
                                                       "mbx_rsa_private_crt_mb8",     "mbx_nistp256_ecdsa_sign_mb8",
                                                       "mbx_nistp384_ecdsa_sign_mb8", "mbx_ed25519_sign_mb8"};
  if (bench->intel == NULL) bench->intel = dlopen(library, RTLD_NOW);
  if (bench->intel == NULL) return false;
  c->bench = bench;
  c->function = dlsym(bench->intel, names[bench->algorithm]);
  if (c->function == NULL) return false;
  for (int i = 0; i < 8; i++) {
    kernel_key *key = bench->keys[i];
    c->in[0][i] = bench->input[i];
    c->sizes[i] = (uint32_t)bench->input_size;
    if (bench->algorithm == KERNEL_ED25519) {
      c->in[1][i] = key->ed25519.seed_public;
      c->in[2][i] = key->ed25519.seed_public + 32;
    } else if (bench->algorithm > KERNEL_RSA4096) {
      /* Any numbers below the order will do as nonces; these are the inputs of other lanes, with the top bits
       * cleared. */
      memcpy(bench->nonces[i], bench->input[(i + 1) % 8], bench->input_size);
      bench->nonces[i][key->ec.words - 1] >>= 2;
      c->in[1][i] = bench->nonces[i];
      c->in[2][i] = key->ec.d;
    } else {
      const rsa_key_numbers *rsa = &key->rsa;
      const uint64_t *const parts[] = {rsa->p, rsa->q, rsa->dp, rsa->dq, rsa->qinv};
      for (int part = 0; part < 5; part++) c->in[1 + part][i] = parts[part];
    }
  }
  return true;
}

static bool prepare_rsa(kernelbench *bench, call *c) {
  rsa_method *method = (rsa_method *)dlsym(bench->intel, "mbx_RSA_private_crt_Method");
  rsa_scratch_size *size = (rsa_scratch_size *)dlsym(bench->intel, "mbx_RSA_Method_BufSize");
  if (method == NULL || size == NULL) return false;
  c->method = method((int)bench->keys[0]->rsa.size * 8);
  if (c->method == NULL) return false;
  if (bench->intel_scratch == NULL) {
    bench->intel_scratch = aligned_alloc(4096, ((size_t)size(c->method) + 8191) & ~(size_t)4095);
  }
  return bench->intel_scratch != NULL;
}

int64_t kernelbench_crypto_mb(kernelbench *bench, const char *library, unsigned shift, unsigned repeats) {
  call c = {0};
  if (!prepare(bench, library, &c)) return BENCH_UNAVAILABLE;
  if (bench->algorithm <= KERNEL_RSA4096 && !prepare_rsa(bench, &c)) return BENCH_UNAVAILABLE;
  return timed_below(shift, &c, repeats);
}
