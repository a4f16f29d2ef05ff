#include "kernels/testing_hooks.h"

#ifdef TESTING_HOOKS
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/workspace_internal.h"

/* Each armed fault is one word: set (bit 63), algorithm, lane, place, bit. */
enum { ARMED_MAX = 16 };
static atomic_uint_fast64_t armed[ARMED_MAX];

static uint64_t packed(kernel_algorithm algorithm, unsigned lane, kernel_fault_place place) {
  return 1ull << 63 | (uint64_t)algorithm << 40 | (uint64_t)lane << 32 | (uint64_t)place << 24;
}

bool kernel_inject_fault(kernel_algorithm algorithm, unsigned lane, kernel_fault_place place, unsigned bit) {
  for (unsigned i = 0; i < ARMED_MAX; i++) {
    uint_fast64_t none = 0;
    if (atomic_compare_exchange_strong(&armed[i], &none, packed(algorithm, lane, place) | (bit & 0xffffff)))
      return true;
  }
  return false;
}

unsigned kernel_clear_faults(void) {
  unsigned pending = 0;
  for (unsigned i = 0; i < ARMED_MAX; i++) pending += atomic_exchange(&armed[i], 0) != 0;
  return pending;
}

static const char *const place_names[FAULT_PLACES] = {
    [FAULT_RSA_P] = "rsa_p",
    [FAULT_RSA_Q] = "rsa_q",
    [FAULT_RSA_RECOMBINED] = "rsa_recombined",
    [FAULT_ECDSA_R] = "ecdsa_r",
    [FAULT_ECDSA_S] = "ecdsa_s",
    [FAULT_ECDSA_POINT] = "ecdsa_point",
    [FAULT_ED25519_R] = "ed25519_r",
    [FAULT_ED25519_S] = "ed25519_s",
    [FAULT_COMB_DIGIT] = "comb_digit",
    [FAULT_ECDSA_INVERSE] = "ecdsa_inverse",
    [FAULT_ED25519_NONCE] = "ed25519_nonce",
    [FAULT_SOFTWARE] = "software",
};

/* The fault of the whole process; `every` is 0 when there is none. */
static struct {
  unsigned algorithm, place, bit, every;
  atomic_uint_fast64_t passed;
} standing;
static pthread_once_t standing_once = PTHREAD_ONCE_INIT;

static void read_standing(void) {
  const char *text = getenv("TESTING_FAULTS");
  char algorithm[16], place[24];
  if (text == NULL) return;
  if (sscanf(text, "%15[^,],%23[^,],%u,%u", algorithm, place, &standing.bit, &standing.every) != 4) abort();
  while (standing.algorithm < KERNEL_ALGORITHMS && strcmp(kernel_algorithm_name(standing.algorithm), algorithm) != 0)
    standing.algorithm++;
  while (standing.place < FAULT_PLACES && strcmp(place_names[standing.place], place) != 0) standing.place++;
  if (standing.algorithm == KERNEL_ALGORITHMS || standing.place == FAULT_PLACES) abort();
}

static bool standing_fault_here(kernel_algorithm algorithm, kernel_fault_place place, unsigned *bit) {
  pthread_once(&standing_once, read_standing);
  if (standing.every == 0 || standing.algorithm != algorithm || standing.place != place) return false;
  *bit = standing.bit;
  return (atomic_fetch_add(&standing.passed, 1) + 1) % standing.every == 0;
}

bool kernel_fault_here(kernel_algorithm algorithm, unsigned lane, kernel_fault_place place, unsigned *bit) {
  for (unsigned i = 0; i < ARMED_MAX; i++) {
    uint_fast64_t now = atomic_load(&armed[i]);
    uint64_t what = now & ~0xffffffull;
    if (what != packed(algorithm, lane, place) && what != packed(algorithm, FAULT_ANY_LANE, place)) continue;
    *bit = (unsigned)(now & 0xffffff);
    if (atomic_compare_exchange_strong(&armed[i], &now, 0)) return true;
  }
  return standing_fault_here(algorithm, place, bit);
}

static _Thread_local struct {
  uint8_t bytes[KERNEL_LANES][48];
  size_t size, count;
} nonces;

void kernel_known_nonces(const uint8_t *values, size_t size, size_t count) {
  nonces.size = size;
  nonces.count = count;
  for (size_t i = 0; i < count; i++) memcpy(nonces.bytes[i], values + i * size, size);
}

const uint8_t *kernel_known_nonce(size_t lane, size_t size) {
  return lane < nonces.count && size == nonces.size ? nonces.bytes[lane] : NULL;
}

extern _Thread_local uint64_t vec_multiplications, vec_instructions; /* counted by ifma8/vec.h */
_Thread_local uint64_t vec_multiplications, vec_instructions;

uint64_t kernel_multiplications(void) {
  return vec_multiplications;
}

uint64_t kernel_vector_instructions(void) {
  return vec_instructions;
}

void kernel_run_poisoned(const kernel_backend *backend, kernel_algorithm algorithm, kernel_lane lanes[], size_t count,
                         kernel_workspace *workspace, uint8_t poison) {
  kernel_lane all[KERNEL_LANES];
  memset(all, poison, sizeof(all));
  memcpy(all, lanes, count * sizeof(kernel_lane));
  memset(workspace->area, poison, sizeof(workspace->area));
  backend->run[algorithm](all, count, workspace);
  memcpy(lanes, all, count * sizeof(kernel_lane));
  kernel_workspace_wipe(workspace);
}
#else
typedef int testing_hooks_are_not_in_this_build; /* a translation unit may not be empty */
#endif
