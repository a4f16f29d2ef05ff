/* Our kernels, timed; see kernelbench.h. */
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/native/kernelbench/internal.h"

kernelbench *kernelbench_new(const char *algorithm) {
  for (int a = 0; a < KERNEL_ALGORITHMS; a++) {
    if (strcmp(kernel_algorithm_name(a), algorithm) != 0) continue;
    kernelbench *bench = calloc(1, sizeof(kernelbench));
    if (bench == NULL) return NULL;
    bench->algorithm = a;
    bench->input_size = kernel_input_size(a) != 0 ? kernel_input_size(a) : 130; /* a TLS 1.3 CertificateVerify */
    bench->workspace = kernel_workspace_new();
    for (size_t i = 0; i < KERNEL_LANES; i++) {
      char error[KERNEL_ERROR_MAX];
      bench->keys[i] = kernel_key_generate(a, error);
      if (bench->keys[i] == NULL || bench->workspace == NULL) {
        kernelbench_free(bench);
        return NULL;
      }
      RAND_bytes(bench->input[i], bench->input_size);
      if (a <= KERNEL_RSA4096) bench->input[i][0] = 0; /* below the modulus */
      bench->lanes[i] = (kernel_lane){
          .key = bench->keys[i], .input = bench->input[i], .input_size = bench->input_size, .output = bench->output[i]};
    }
    return bench;
  }
  return NULL;
}

void kernelbench_free(kernelbench *bench) {
  if (bench == NULL) return;
  for (size_t i = 0; i < KERNEL_LANES; i++) kernel_key_release(bench->keys[i]);
  kernel_workspace_free(bench->workspace);
  free(bench->intel_scratch);
  free(bench);
}

int64_t kernelbench_ours(kernelbench *bench, const char *name, unsigned count, unsigned repeats) {
  const kernel_backend *backend = kernel_backend_by_name(name);
  if (backend == NULL || backend->run[bench->algorithm] == NULL) return BENCH_UNAVAILABLE;
  int64_t best = INT64_MAX;
  for (unsigned turn = 0; turn < repeats; turn++) {
    int64_t start = nanoseconds();
    kernel_batch(backend, bench->algorithm, bench->lanes, count, bench->workspace);
    int64_t time = nanoseconds() - start;
    if (time < best) best = time;
    for (unsigned i = 0; i < count; i++) {
      if (bench->lanes[i].status != KERNEL_OK || bench->lanes[i].redone) return BENCH_FAILED;
    }
  }
  return best;
}

const char *kernelbench_plan(const char *algorithm, const char *name) {
  static char text[KERNEL_PLAN_MAX];
  text[0] = 0;
  const kernel_backend *backend = kernel_backend_by_name(name);
  for (int a = 0; a < KERNEL_ALGORITHMS && backend != NULL && backend->plan != NULL; a++) {
    if (strcmp(kernel_algorithm_name(a), algorithm) == 0) backend->plan(a, text);
  }
  return text;
}
