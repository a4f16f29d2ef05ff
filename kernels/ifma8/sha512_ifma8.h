/* SHA-512 (FIPS 180-4) of eight messages at a time, one per lane.
 *
 * Eight hashes take less time than two of BoringSSL's, which matters for the nonces of ECDSA and the three hashes of
 * Ed25519, since a signature on the lanes costs only a microsecond or two.
 *
 * Lanes       word i of the state of all lanes is one vec.
 * Secret      the bytes that are hashed. Their number is public, and branches depend on nothing else.
 */
#ifndef KERNELS_IFMA8_SHA512_IFMA8_H
#define KERNELS_IFMA8_SHA512_IFMA8_H

#include <stddef.h>

#include "kernels/ifma8/vec.h"

enum { SHA512_PIECES = 4, SHA512_BLOCK = 128 };

/* One message, in up to four pieces, one after the other; unused pieces have size 0. */
typedef struct sha512_message {
  const uint8_t *piece[SHA512_PIECES];
  size_t size[SHA512_PIECES];
} sha512_message;

/* Secret scratch memory, which the caller provides, so that it is wiped together with the caller's. */
typedef struct sha512_work {
  vec schedule[16];
  uint8_t blocks[8][SHA512_BLOCK];
} sha512_work;

/* digest[i] gets the i-th 64-bit word of each lane's digest (which is big-endian as bytes). */
void VEC_NAME(sha512_batch)(const sha512_message messages[8], sha512_work *work, vec digest[8]);

#endif
