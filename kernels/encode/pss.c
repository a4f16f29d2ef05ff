/* EMSA-PSS:  block = maskedDB || H || BC,  DB = 00 .. 00 01 salt,  H = Hash(00 x 8 || digest || salt). */
#include <string.h>

#include "kernels/encode/rsa_blocks.h"

/* target ^= MGF1(seed) (RFC 8017, B.2.1). */
static void mask_with_mgf1(hash_algorithm hash, const uint8_t *seed, uint8_t *target, size_t size) {
  size_t step = hash_size(hash);
  uint8_t mask[HASH_MAX];
  for (size_t done = 0, counter = 0; done < size; done += step, counter++) {
    /* At most 512 bytes of at least 32: the counter stays below 256. */
    const uint8_t counter_bytes[4] = {0, 0, 0, (uint8_t)counter};
    hash_pieces(hash, (const hash_piece[]){{seed, step}, {counter_bytes, 4}}, 2, mask);
    for (size_t i = 0; i < step && done + i < size; i++) target[done + i] ^= mask[i];
  }
}

void pss_encode(hash_algorithm hash, const uint8_t *digest, const uint8_t *salt, uint8_t *block, size_t size) {
  static const uint8_t zeros[8];
  size_t length = hash_size(hash), db_size = size - length - 1;
  uint8_t h[HASH_MAX];
  hash_pieces(hash, (const hash_piece[]){{zeros, sizeof(zeros)}, {digest, length}, {salt, length}}, 3, h);
  memset(block, 0, db_size - length - 1);
  block[db_size - length - 1] = 0x01;
  memcpy(block + db_size - length, salt, length);
  mask_with_mgf1(hash, h, block, db_size);
  block[0] &= 0x7f; /* emBits is one less than the bits of the modulus */
  memcpy(block + db_size, h, length);
  block[size - 1] = 0xbc;
}
