/* secret_flow ALGORITHM KEY-FILE [leak-branch | leak-address]
 *
 * Runs batches of the portable vector kernel with every secret of the keys marked undefined. Under valgrind's memcheck,
 * a branch or an address that depends on a secret is then an error. With "leak-..." it leaks on purpose, so that the
 * test knows that a leak would be detected.
 *
 * Exits with 0 when the results are right, otherwise with 1 (valgrind's exit status says what it found).
 */
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <valgrind/memcheck.h>

#include "kernels/ifma8/rsa_ifma8.h"
#include "kernels/ifma8/rsa_lone_ifma8.h"
#include "kernels/key_internal.h"
#include "kernels/testing_hooks.h"

enum { OPERATIONS = 3 }; /* fewer than lanes, so that lanes without an operation are tested too */
/* RSA: eight lanes, four, and one number over the lanes; products made both ways. */
static const struct {
  int count;
  const char *products;
} batches[] = {{OPERATIONS, "karatsuba"}, {2, "karatsuba"}, {1, "karatsuba"}, {OPERATIONS, "schoolbook"}};

static void secret(const void *memory, size_t size) {
  (void)VALGRIND_MAKE_MEM_UNDEFINED(memory, size);
}

static void mark_rsa(const kernel_key *key) {
  const rsa_key_numbers *n = &key->rsa;
  secret(n->p, sizeof n->p);
  secret(n->q, sizeof n->q);
  secret(n->dp, sizeof n->dp);
  secret(n->dq, sizeof n->dq);
  secret(n->qinv, sizeof n->qinv);
  const rsa_ifma8_key *prepared = key->ifma8;
  secret(prepared->half, sizeof prepared->half);
  secret(prepared->qinv, sizeof prepared->qinv);
  const unsigned registers = lone_registers(key->algorithm);
  secret(prepared->lone, lone_secret_words(registers, n->words / 2) * sizeof *prepared->lone);
}

static void mark(const kernel_key *key) {
  if (key->algorithm <= KERNEL_RSA4096) {
    mark_rsa(key);
  } else if (key->algorithm == KERNEL_ED25519) {
    secret(key->ed25519.seed_public, 32);
    secret(key->ed25519.scalar, sizeof key->ed25519.scalar);
    secret(key->ed25519.prefix, sizeof key->ed25519.prefix);
  } else {
    secret(key->ec.d, sizeof key->ec.d);
    secret(key->ec.d_bytes, sizeof key->ec.d_bytes);
  }
}

/* The byte of the key that the deliberate leaks depend on. */
static uint8_t secret_byte(const kernel_key *key) {
  if (key->algorithm <= KERNEL_RSA4096) return (uint8_t)key->rsa.dp[0];
  return key->algorithm == KERNEL_ED25519 ? key->ed25519.scalar[1] : key->ec.d_bytes[7];
}

volatile uint8_t table[512];

static int leak(const char *how, const kernel_key *key) {
  if (strcmp(how, "leak-branch") == 0) return secret_byte(key) & 1 ? printf("odd\n") : printf("even\n");
  table[secret_byte(key) * 2] = 1; /* valgrind would drop an unused load */
  return 0;
}

/* Whether a lane has the result of software, which uses `key`, a copy whose secrets are defined. */
static bool right(const kernel_key *key, const kernel_lane *lane, kernel_workspace *workspace) {
  if (lane->status != KERNEL_OK) return false;
  if (key->algorithm == KERNEL_P256 || key->algorithm == KERNEL_P384) return true; /* checked in the kernel */
  uint8_t expected[KERNEL_OUTPUT_MAX];
  kernel_lane again = {.key = key, .input = lane->input, .input_size = lane->input_size, .output = expected};
  kernel_software.run[key->algorithm](&again, 1, workspace);
  return memcmp(expected, lane->output, kernel_output_size(key->algorithm)) == 0;
}

int main(int count, char **argument) {
  kernel_algorithm algorithm = 0;
  while (count >= 2 && algorithm < KERNEL_ALGORITHMS && strcmp(kernel_algorithm_name(algorithm), argument[1]) != 0) {
    algorithm++;
  }
  if (count < 3 || algorithm == KERNEL_ALGORITHMS) {
    fprintf(stderr, "usage: secret_flow ALGORITHM KEY-FILE [leak-branch | leak-address]\n");
    return 2;
  }

  kernel_workspace *workspace = kernel_workspace_new();
  kernel_lane lanes[OPERATIONS] = {0};
  kernel_key *keys[OPERATIONS], *copies[OPERATIONS];
  static uint8_t input[OPERATIONS][KERNEL_OUTPUT_MAX], output[OPERATIONS][KERNEL_OUTPUT_MAX];
  size_t size = algorithm == KERNEL_ED25519 ? 130 : kernel_input_size(algorithm);
  for (int i = 0; i < OPERATIONS; i++) {
    char error[KERNEL_ERROR_MAX];
    keys[i] = kernel_key_read(argument[2], error);
    if (keys[i] == NULL || workspace == NULL) {
      fprintf(stderr, "secret_flow: %s\n", error);
      return 1;
    }
    /* A copy keeps its secrets defined: software computes the expected result with it. */
    static kernel_key storage[OPERATIONS];
    memcpy(&storage[i], keys[i], sizeof storage[i]);
    copies[i] = &storage[i];
    RAND_bytes(input[i], size);
    if (algorithm <= KERNEL_RSA4096) input[i][0] = 0;
    lanes[i] = (kernel_lane){
        .key = keys[i], .input = input[i], .input_size = size, .output = output[i], .status = KERNEL_FAULT};
    mark(keys[i]);
  }
  if (count > 3) leak(argument[3], keys[0]);

  for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
    const int operations = batches[b].count;
    kernel_force_rsa_products(batches[b].products);
    memset(output, 0, sizeof output);
    kernel_ifma8_portable.run[algorithm](lanes, (size_t)operations, workspace);
    for (int i = 0; i < operations; i++) {
      if (!right(copies[i], &lanes[i], workspace)) {
        fprintf(stderr, "secret_flow: lane %d of %d is wrong\n", i, operations);
        return 1;
      }
    }
    printf("%s: %d operations right\n", kernel_algorithm_name(algorithm), operations);
  }
  return 0;
}
