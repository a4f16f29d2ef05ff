/* Hedged nonces of eight ECDSA operations: the hash of kernels/ecdsa_nonce.h runs in lanes, the other steps are shared.
 *
 * Lanes       lane i is operation i; lanes without an operation hash nothing and get the nonce 1.
 * Secret      all but the sizes, which are those of the curve. Nothing branches on anything else.
 *
 * Included by ecdsa_ifma8_sign.h, which determines the curve.
 */
#ifndef KERNELS_IFMA8_ECDSA_IFMA8_NONCE_H
#define KERNELS_IFMA8_ECDSA_IFMA8_NONCE_H

#include <string.h>

#include "kernels/ecdsa_nonce.h"
#include "kernels/ifma8/sha512_ifma8.h"
#include "kernels/key_internal.h"

typedef struct nonce_work {
  sha512_work hash;
  uint8_t fresh[ECDSA_NONCE_FRESH];
  uint8_t index[8];
  uint64_t wide[8][8]; /* [word][lane] */
  uint8_t wide_bytes[ECDSA_NONCE_WIDE];
} nonce_work;

/* `words` 64-bit words per nonce, the least significant first. `work` is secret; the caller wipes it. */
static __attribute__((noinline, unused)) void nonces_from_fresh(kernel_algorithm algorithm, nonce_work *work,
                                                                const kernel_lane lanes[], size_t count, size_t words,
                                                                uint64_t k[]) {
  sha512_message messages[8] = {0};
  vec digest[8];
  for (size_t i = 0; i < count; i++) {
    work->index[i] = (uint8_t)i;
    messages[i] = (sha512_message){
        .piece = {lanes[i].key->ec.d_bytes, work->fresh, lanes[i].input, &work->index[i]},
        .size = {8 * words, ECDSA_NONCE_FRESH, 8 * words, 1},
    };
  }
  VEC_NAME(sha512_batch)(messages, &work->hash, digest);
  for (int word = 0; word < 8; word++) vec_store(work->wide[word], digest[word]);
  memset(k, 0, 8 * words * sizeof(uint64_t));
  for (size_t i = 0; i < 8; i++) {
    if (i >= count) {
      k[i * words] = 1;
      continue;
    }
    for (int word = 0; word < 8; word++) {
      const uint64_t big_endian = __builtin_bswap64(work->wide[word][i]);
      memcpy(work->wide_bytes + 8 * word, &big_endian, 8);
    }
    ecdsa_nonce_from_wide(algorithm, i, work->wide_bytes, k + i * words);
  }
}

#endif
