/* Two classes of batches that must take the same time; see timing.c. */
#ifndef TESTS_CONSTANT_TIME_CLASSES_H
#define TESTS_CONSTANT_TIME_CLASSES_H

#include "kernels/ifma8/rsa_ifma8.h"
#include "kernels/key_internal.h"

enum { POOL = 16, SPARSE = POOL }; /* random keys, and one more whose exponents have many zeros */

typedef enum comparison { MESSAGES, KEYS, SPARSE_KEYS, NONCES, CONTROL, COMPARISONS } comparison;

enum { LONE_WORDS_MAX = 2 * (2 * 32 + 10) + 4 * 32 + 10 }; /* lone_kept_words of RSA-4096 */

typedef struct key_slot {
  kernel_key key;
  rsa_ifma8_key prepared;        /* of RSA keys: where key.ifma8 points */
  uint64_t lone[LONE_WORDS_MAX]; /* and where prepared.lone points */
} key_slot;

typedef struct subject {
  kernel_algorithm algorithm;
  unsigned count; /* operations per batch */
  kernel_key *pool[POOL + 1];
  /* The batch is run from the same addresses for both classes; keys are copied here before the clock starts. */
  key_slot slots[KERNEL_LANES], staged[2];
  kernel_lane lanes[KERNEL_LANES];
  size_t input_size;
  uint8_t input[KERNEL_LANES][KERNEL_OUTPUT_MAX], output[KERNEL_LANES][KERNEL_OUTPUT_MAX];
  kernel_workspace *workspace;
} subject;

/* False when memory ran out. */
bool subject_new(subject *s, kernel_algorithm algorithm, unsigned count);
void subject_free(subject *s);
bool comparison_exists(comparison c, kernel_algorithm algorithm, bool sparse);
/* Prepares a batch of class 0 (the same every time) or class 1 (random). */
void subject_prepare(subject *s, comparison c, int class);
const char *comparison_name(comparison c);

#endif
