/* The hashes of the TLS signature schemes. Inputs are public: nothing here need be wiped. */
#ifndef KERNELS_ENCODE_HASH_H
#define KERNELS_ENCODE_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef enum hash_algorithm { HASH_SHA256, HASH_SHA384, HASH_SHA512 } hash_algorithm;

enum { HASH_MAX = 64 };

size_t hash_size(hash_algorithm hash); /* 32, 48, 64 */
void hash_digest(hash_algorithm hash, const uint8_t *input, size_t size, uint8_t digest[HASH_MAX]);
/* The digest of several concatenated pieces. */
typedef struct hash_piece {
  const uint8_t *data;
  size_t size;
} hash_piece;
void hash_pieces(hash_algorithm hash, const hash_piece pieces[], size_t count, uint8_t digest[HASH_MAX]);

#endif
