#include "tests/native/constant_time/x25519_classes.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/x25519.h"

typedef uint8_t key_set[X25519_LANES][X25519_BYTES];

/* Both classes use the same addresses; the sources of their keys are made again for each run, in both alike. */
static struct {
  x25519_comparison comparison;
  key_set always, keys, made, staged[2];
  uint8_t point[X25519_BYTES];
} now;

const char *x25519_comparison_name(x25519_comparison c) {
  static const char *const names[X25519_COMPARISONS] = {
      "shared, keys: one and random", "shared, keys: sparse and random", "public, keys: one and random"};
  return names[c];
}

static void prepare(void *subject, int class) {
  (void)subject;
  key_set random;
  RAND_bytes((uint8_t *)random, sizeof random);
  memcpy(now.staged[0], now.always, sizeof now.always);
  memcpy(now.staged[1], random, sizeof random);
  memcpy(now.keys, now.staged[class], sizeof now.keys);
}

static void run(void *subject) {
  (void)subject;
  if (now.comparison == X25519_PUBLIC) {
    if (x25519_public_ifma8(now.made, now.keys) != 0xff) abort();
  } else if (!x25519_shared_ifma4(now.made[0], now.keys[0], now.point)) {
    abort();
  }
}

trial x25519_trial(x25519_comparison c) {
  key_set peers;
  now.comparison = c;
  RAND_bytes((uint8_t *)now.always, sizeof now.always);
  if (c == X25519_SHARED_SPARSE) memset(now.always, 0, sizeof now.always); /* only the bit that clamping sets remains */
  RAND_bytes((uint8_t *)peers, sizeof peers);
  if (x25519_public_ifma8(now.made, peers) != 0xff) abort();
  memcpy(now.point, now.made[0], sizeof now.point);
  return (trial){.prepare = prepare, .run = run};
}
