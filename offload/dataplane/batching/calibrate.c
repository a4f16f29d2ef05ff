#include "offload/dataplane/batching/calibrate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/sign.h"

enum {
  BATCH_OVERHEAD_NS = 5000, /* beside the kernel, a batch costs its share of locking, posting and waking */
  INPUT_SIZE = 130,
  LEAST_ROUNDS = 4,
  MOST_ROUNDS = 40,
  ROUNDS_BUDGET_NS = 4000000, /* of one class on one backend */
};

typedef struct bench {
  kernel_key *key[KERNEL_LANES];
  sign_operation operations[KERNEL_LANES];
  sign_operation *pointers[KERNEL_LANES];
  kernel_workspace *workspace;
  uint8_t input[INPUT_SIZE];
} bench;

static kernel_key *new_key(kernel_algorithm algorithm, char error[KERNEL_ERROR_MAX]) {
  switch (algorithm) {
    case KERNEL_RSA2048: return kernel_key_parse(calibration_rsa2048, calibration_rsa2048_size, error);
    case KERNEL_RSA3072: return kernel_key_parse(calibration_rsa3072, calibration_rsa3072_size, error);
    case KERNEL_RSA4096: return kernel_key_parse(calibration_rsa4096, calibration_rsa4096_size, error);
    default: return kernel_key_generate(algorithm, error);
  }
}

static uint16_t scheme_of(kernel_algorithm algorithm) {
  switch (algorithm) {
    case KERNEL_P256: return SCHEME_ECDSA_P256_SHA256;
    case KERNEL_P384: return SCHEME_ECDSA_P384_SHA384;
    case KERNEL_ED25519: return SCHEME_ED25519;
    default: return SCHEME_RSA_PSS_SHA256;
  }
}

static void free_bench(bench *it) {
  for (unsigned i = 0; i < KERNEL_LANES; i++) kernel_key_release(it->key[i]);
  kernel_workspace_free(it->workspace);
  free(it);
}

/* RSA lanes share one key: parsing eight would take longer than measuring. */
static bool make_keys(bench *it, kernel_algorithm algorithm, char error[KERNEL_ERROR_MAX]) {
  for (unsigned i = 0; i < KERNEL_LANES; i++) {
    bool share = i > 0 && algorithm <= KERNEL_RSA4096;
    it->key[i] = share ? kernel_key_retain(it->key[0]) : new_key(algorithm, error);
    if (it->key[i] == NULL) return false;
  }
  return true;
}

static bench *new_bench(kernel_algorithm algorithm, char error[KERNEL_ERROR_MAX]) {
  bench *it = calloc(1, sizeof *it);
  if (it == NULL || (it->workspace = kernel_workspace_new()) == NULL) {
    snprintf(error, KERNEL_ERROR_MAX, "no locked memory for the calibration (RLIMIT_MEMLOCK)");
  } else if (make_keys(it, algorithm, error)) {
    memset(it->input, 0x20, sizeof it->input);
    for (unsigned i = 0; i < KERNEL_LANES; i++) {
      it->operations[i] = (sign_operation){
          .key = it->key[i], .scheme = scheme_of(algorithm), .input = it->input, .input_size = sizeof it->input};
      it->pointers[i] = &it->operations[i];
    }
    return it;
  }
  if (it != NULL) free_bench(it);
  return NULL;
}

static uint64_t now_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t run_once(bench *it, const kernel_backend *backend, kernel_algorithm algorithm, unsigned count,
                         clockid_t clock) {
  uint64_t began = now_ns(clock);
  sign_batch(backend, algorithm, it->pointers, count, it->workspace);
  return now_ns(clock) - began;
}

/* Stores the nanoseconds of batches of the given sizes in ns[size]: the minimum of a few rounds, in CPU time of the
 * thread, since a disturbance can only add time, and a busy host must not make a backend look slow for as long as the
 * daemon runs. The sizes are interleaved: they differ by a few percent, so a slow moment has to affect all of them
 * alike. */
static void measure(bench *it, const kernel_backend *backend, kernel_algorithm algorithm, const unsigned sizes[],
                    unsigned how_many, uint64_t ns[]) {
  uint64_t total = 0;
  run_once(it, backend, algorithm, sizes[0], CLOCK_THREAD_CPUTIME_ID); /* warms caches and clock */
  for (unsigned i = 0; i < how_many; i++) ns[sizes[i]] = UINT64_MAX;
  for (unsigned round = 0; round < MOST_ROUNDS && (round < LEAST_ROUNDS || total < ROUNDS_BUDGET_NS); round++) {
    for (unsigned i = 0; i < how_many; i++) {
      uint64_t took = run_once(it, backend, algorithm, sizes[i], CLOCK_THREAD_CPUTIME_ID);
      total += took;
      if (took < ns[sizes[i]]) ns[sizes[i]] = took;
    }
  }
}

static void measure_class(bench *it, const kernel_backend *backend, kernel_algorithm algorithm, uint64_t ns[]) {
  if (backend == &kernel_software) { /* one operation after the other */
    static const unsigned one[] = {1};
    measure(it, backend, algorithm, one, 1, ns);
    for (unsigned count = 2; count <= KERNEL_LANES; count++) ns[count] = count * ns[1];
    return;
  }
  /* RSA is divided among forms for one, two and four operations, as the processor's plan says: no size follows from
   * another. */
  static const unsigned sizes[] = {1, 2, 3, 4, 5, 6, 7, 8};
  measure(it, backend, algorithm, sizes, sizeof sizes / sizeof *sizes, ns);
}

static void forbid(uint64_t ns[]) {
  for (unsigned count = 1; count <= KERNEL_LANES; count++) ns[count] = COST_UNAVAILABLE;
}

bool calibrate(cost_model *model, const kernel_backend *const backends[], unsigned count, int only,
               char error[KERNEL_ERROR_MAX]) {
  cost_model measured = {.backends = count, .overhead_ns = BATCH_OVERHEAD_NS};
  for (unsigned algorithm = 0; algorithm < KERNEL_ALGORITHMS; algorithm++) {
    bench *it = new_bench(algorithm, error);
    if (it == NULL) return false;
    for (unsigned i = 0; i < count; i++) {
      bool has_kernel = backends[i]->run[algorithm] != NULL;
      bool other_has_to = only >= 0 && (unsigned)only != i && backends[only]->run[algorithm] != NULL;
      if (has_kernel && !other_has_to) {
        measure_class(it, backends[i], algorithm, measured.ns[i][algorithm]);
      } else {
        forbid(measured.ns[i][algorithm]);
      }
    }
    free_bench(it);
  }
  cost_model_settle(&measured);
  *model = measured;
  return true;
}

bool calibrate_benchmark(const kernel_backend *backend, kernel_algorithm algorithm, unsigned count, unsigned rounds,
                         double seconds[], char error[KERNEL_ERROR_MAX]) {
  bench *it = new_bench(algorithm, error);
  if (it == NULL) return false;
  run_once(it, backend, algorithm, count, CLOCK_MONOTONIC); /* warms the caches */
  for (unsigned round = 0; round < rounds; round++) {
    seconds[round] = (double)run_once(it, backend, algorithm, count, CLOCK_MONOTONIC) / 1e9;
  }
  bool sound = it->operations[0].status == SIGN_OK;
  if (!sound) snprintf(error, KERNEL_ERROR_MAX, "%s: %s", backend->name, sign_status_name(it->operations[0].status));
  free_bench(it);
  return sound;
}
