/* rsa_cases BACKEND ALGORITHM ROUNDS WAY
 *
 * WAY is that of rsa_ifma8_plan.h, or "" for the plan of the processor.
 * Runs batches of extreme and random inputs with fresh keys, and compares the results with software. In a build with
 * BOUND_CHECKS the kernels stop the program at the first limb outside the bounds that their comments prove.
 */
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/key_internal.h"
#include "kernels/testing_hooks.h"

enum { KEYS = 3 };

/* 0, 1, n - 1, n / 2, all ones below n, a power of two, or random. */
static void make_input(uint8_t *input, const kernel_key *key, unsigned kind) {
  size_t size = key->rsa.size;
  memset(input, 0, size);
  switch (kind) {
    case 0: break;
    case 1: input[size - 1] = 1; break;
    case 2: /* n is odd */
      memcpy(input, key->rsa.n_bytes, size);
      input[size - 1] ^= 1;
      break;
    case 3: memset(input + 1, 0xff, size - 1); break;
    case 4: input[1] = 1; break;
    case 5: /* a prime factor: one half is 0 */
      for (size_t i = 0; i < size / 2; i++) input[size - 1 - i] = (uint8_t)(key->rsa.p[i / 8] >> 8 * (i % 8));
      break;
    default: RAND_bytes(input, size); input[0] = 0;
  }
}

static int fail(const char *what) {
  fprintf(stderr, "rsa_cases: %s\n", what);
  return 1;
}

static int run_round(const kernel_backend *backend, kernel_algorithm algorithm, kernel_key *const keys[KEYS], int round,
                     kernel_workspace *workspace) {
  static uint8_t input[KERNEL_LANES][KERNEL_OUTPUT_MAX], output[2][KERNEL_LANES][KERNEL_OUTPUT_MAX];
  kernel_lane lanes[2][KERNEL_LANES];
  size_t size = kernel_output_size(algorithm);
  unsigned count = (unsigned)round % KERNEL_LANES + 1;
  for (unsigned lane = 0; lane < count; lane++) {
    const kernel_key *key = keys[(lane + (unsigned)round) % KEYS];
    make_input(input[lane], key, (unsigned)(round < 8 ? lane + (unsigned)round : 99));
    for (int side = 0; side < 2; side++) {
      lanes[side][lane] =
          (kernel_lane){.key = key, .input = input[lane], .input_size = size, .output = output[side][lane]};
    }
  }
  /* Every number of lanes meets both ways to make products. */
  kernel_force_rsa_products((unsigned)round / KERNEL_LANES % 2 == 0 ? "karatsuba" : "schoolbook");
  kernel_batch(backend, algorithm, lanes[0], count, workspace);
  kernel_batch(&kernel_software, algorithm, lanes[1], count, workspace);
  for (unsigned lane = 0; lane < count; lane++) {
    if (lanes[0][lane].status != KERNEL_OK || lanes[0][lane].redone) return fail("a lane failed");
    if (memcmp(output[0][lane], output[1][lane], size) != 0) return fail("a lane differs from software");
  }
  return 0;
}

int main(int count, char **argument) {
  if (count != 5 || !kernel_force_rsa_way(argument[4])) return fail("usage: rsa_cases BACKEND ALGORITHM ROUNDS WAY");
  const kernel_backend *backend = kernel_backend_by_name(argument[1]);
  if (backend == NULL) return 77; /* this host cannot run it */
  for (kernel_algorithm a = KERNEL_RSA2048; a <= KERNEL_RSA4096; a++) {
    if (strcmp(kernel_algorithm_name(a), argument[2]) != 0) continue;
    kernel_workspace *workspace = kernel_workspace_new();
    kernel_key *keys[KEYS];
    for (int i = 0; i < KEYS; i++) {
      char error[KERNEL_ERROR_MAX];
      keys[i] = kernel_key_generate(a, error);
      if (keys[i] == NULL || workspace == NULL) return fail(error);
    }
    int rounds = atoi(argument[3]), status = 0;
    for (int round = 0; round < rounds && status == 0; round++) status = run_round(backend, a, keys, round, workspace);
    for (int i = 0; i < KEYS; i++) kernel_key_release(keys[i]);
    kernel_workspace_free(workspace);
    if (status == 0) printf("%s on %s: %d batches right\n", argument[2], argument[1], rounds);
    return status;
  }
  return fail("no such algorithm");
}
