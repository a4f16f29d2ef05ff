/* X25519 with private keys of two classes: the same every time, and random. See timing.c. */
#ifndef TESTS_CONSTANT_TIME_X25519_CLASSES_H
#define TESTS_CONSTANT_TIME_X25519_CLASSES_H

#include "tests/native/constant_time/welch.h"

typedef enum x25519_comparison {
  X25519_SHARED,        /* the shared secret of one private key and of random ones */
  X25519_SHARED_SPARSE, /* the shared secret of a private key with as few bits as allowed, and of random ones */
  X25519_PUBLIC,        /* the public keys of eight private keys, the same and random */
  X25519_COMPARISONS
} x25519_comparison;

const char *x25519_comparison_name(x25519_comparison c);
/* Only one trial at a time: its state is static. */
trial x25519_trial(x25519_comparison c);

#endif
