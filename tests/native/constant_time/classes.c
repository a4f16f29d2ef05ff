/* See classes.h. Both classes do the same work before the clock starts: copies of the same size from different places,
 * and the same draws of randomness. */
#include "tests/native/constant_time/classes.h"

#include <openssl/rand.h>
#include <string.h>

#include "kernels/ifma8/rsa_lone_ifma8.h"
#include "kernels/testing_hooks.h"

const char *comparison_name(comparison c) {
  static const char *const names[COMPARISONS] = {"messages: one and random", "keys: one and random",
                                                 "keys: sparse and random", "nonces: small and random",
                                                 "control: leaks a bit on purpose"};
  return names[c];
}

bool comparison_exists(comparison c, kernel_algorithm algorithm, bool sparse) {
  if (c == NONCES) return algorithm == KERNEL_P256 || algorithm == KERNEL_P384;
  /* Known to differ on Zen 5, by 0.1%: docs/decisions/0016. */
  if (c == SPARSE_KEYS) return sparse;
  return c != CONTROL || algorithm == KERNEL_P256; /* one control is enough */
}

/* Makes an exponent or scalar with few bits set. The result is then wrong and the check fails, in both classes alike:
 * the comparison covers the computation, not the release. The top word of an RSA exponent stays, so that the
 * intermediate value is not 1 nearly all the time. */
static void make_sparse(kernel_key *key) {
  if (key->algorithm <= KERNEL_RSA4096) {
    rsa_ifma8_key *prepared = key->ifma8;
    for (int half = 0; half < 2; half++) {
      unsigned top = key->rsa.words / 2 - 1;
      memset(prepared->half[half].exponent, 0, top * sizeof(uint64_t));
      memset(half == 0 ? key->rsa.dp : key->rsa.dq, 0, top * sizeof(uint64_t)); /* read by lone operations */
    }
  } else if (key->algorithm == KERNEL_ED25519) {
    memset(key->ed25519.scalar, 0, sizeof key->ed25519.scalar);
    key->ed25519.scalar[31] = 0x40;
  } else {
    memset(key->ec.d, 0, sizeof key->ec.d);
    memset(key->ec.d_bytes, 0, sizeof key->ec.d_bytes);
    key->ec.d[0] = 2;
    key->ec.d_bytes[key->ec.words * 8 - 1] = 2;
  }
}

/* Corrupts a staged random key's exponents or scalar, so that its check fails as the sparse key's does. */
static void spoil(kernel_key *key) {
  if (key->algorithm <= KERNEL_RSA4096) {
    rsa_ifma8_key *prepared = key->ifma8;
    for (int half = 0; half < 2; half++) prepared->half[half].exponent[0] ^= 4;
    key->rsa.dp[0] ^= 4;
    key->rsa.dq[0] ^= 4;
  } else if (key->algorithm == KERNEL_ED25519) {
    key->ed25519.scalar[3] ^= 4;
  } else {
    key->ec.d[1] ^= 4;
    key->ec.d_bytes[key->ec.words * 8 - 9] ^= 4;
  }
}

static void copy_key(key_slot *to, kernel_algorithm algorithm, const kernel_key *from) {
  memcpy(&to->key, from, sizeof *from);
  if (algorithm <= KERNEL_RSA4096) {
    const unsigned registers = lone_registers(algorithm), words = from->rsa.words / 2;
    memcpy(&to->prepared, from->ifma8, sizeof to->prepared);
    memcpy(to->lone, to->prepared.lone, lone_kept_words(registers, words) * sizeof *to->lone);
    to->prepared.lone = to->lone;
    to->key.ifma8 = &to->prepared;
  }
}

bool subject_new(subject *s, kernel_algorithm algorithm, unsigned count) {
  memset(s, 0, sizeof *s);
  s->algorithm = algorithm;
  s->count = count;
  s->input_size = algorithm == KERNEL_ED25519 ? 130 : kernel_input_size(algorithm);
  s->workspace = kernel_workspace_new();
  if (s->workspace == NULL) return false;
  for (int i = 0; i <= POOL; i++) {
    char error[KERNEL_ERROR_MAX];
    s->pool[i] = kernel_key_generate(algorithm, error);
    if (s->pool[i] == NULL) return false;
  }
  make_sparse(s->pool[SPARSE]);
  for (unsigned lane = 0; lane < count; lane++) {
    s->lanes[lane] = (kernel_lane){.key = &s->slots[lane].key,
                                   .input = s->input[lane],
                                   .input_size = s->input_size,
                                   .output = s->output[lane],
                                   .status = KERNEL_FAULT};
    copy_key(&s->slots[lane], algorithm, s->pool[lane % POOL]);
  }
  return true;
}

void subject_free(subject *s) {
  for (int i = 0; i <= POOL; i++) kernel_key_release(s->pool[i]);
  kernel_workspace_free(s->workspace);
}

/* The keys of both classes are made every time; only the last copy depends on the class, and both are in the cache
 * then.
 */
static void prepare_keys(subject *s, int class, uint8_t random, bool sparse) {
  for (unsigned lane = 0; lane < s->count; lane++) {
    copy_key(&s->staged[0], s->algorithm, s->pool[sparse ? SPARSE : (int)lane]);
    if (!sparse) spoil(&s->staged[0].key);
    copy_key(&s->staged[1], s->algorithm, s->pool[(random + lane) % POOL]);
    spoil(&s->staged[1].key);
    copy_key(&s->slots[lane], s->algorithm, &s->staged[class].key);
  }
}

static void prepare_nonces(subject *s, int class, uint8_t random[KERNEL_LANES][KERNEL_OUTPUT_MAX]) {
  static uint8_t nonces[KERNEL_LANES * 48];
  for (unsigned lane = 0; lane < s->count; lane++) {
    uint8_t *nonce = nonces + lane * s->input_size;
    memcpy(nonce, random[lane], s->input_size);
    if (class == 0) memset(nonce, 0, s->input_size - 1);
    nonce[0] &= 0x7f;              /* below the order */
    nonce[s->input_size - 1] |= 1; /* not 0 */
  }
  kernel_known_nonces(nonces, s->input_size, s->count);
}

void subject_prepare(subject *s, comparison c, int class) {
  static uint8_t random[KERNEL_LANES][KERNEL_OUTPUT_MAX], fixed[KERNEL_LANES][KERNEL_OUTPUT_MAX];
  RAND_bytes((uint8_t *)random, sizeof random);
  memset(fixed, 0, sizeof fixed);
  for (int lane = 0; lane < KERNEL_LANES; lane++) fixed[lane][s->input_size - 1] = 1;
  bool same = (c == MESSAGES || c == CONTROL) && class == 0;
  memcpy(s->input, same ? fixed : random, sizeof s->input);
  if (s->algorithm <= KERNEL_RSA4096) {
    for (int lane = 0; lane < KERNEL_LANES; lane++) s->input[lane][0] = 0; /* below the modulus */
  }
  if (c == KEYS || c == SPARSE_KEYS) prepare_keys(s, class, random[0][0], c == SPARSE_KEYS);
  if (c == NONCES) prepare_nonces(s, class, random);
}
