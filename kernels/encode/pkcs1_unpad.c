/* 00 02 (at least 8 bytes, none zero) 00 (48 bytes): the zero can only be in one place, so there is no need to search.
 */
#include <openssl/mem.h>
#include <openssl/sha2.h>
#include <string.h>

#include "kernels/encode/rsa_blocks.h"
#include "kernels/key_internal.h"

/* All ones if x is 0, else 0; x < 2^31. The barrier keeps the compiler from turning it into a branch. */
static uint32_t mask_if_zero(uint32_t x) {
  uint32_t mask = 0u - ((x - 1u) >> 31);
  __asm__("" : "+r"(mask));
  return mask;
}

/* SHA-384 of a secret and the ciphertext, 48 bytes. The secret is the CRT exponents, which come first and have a fixed
 * length; SHA-384 is a truncated hash, which rules out length extension. This must not fail, so it does not
 * allocate. */
static void synthetic_premaster(const kernel_key *key, const uint8_t *ciphertext, size_t size,
                                uint8_t premaster[PREMASTER_SIZE]) {
  static const char label[] = "tls-offload implicit rejection";
  _Static_assert((int)SHA384_DIGEST_LENGTH == (int)PREMASTER_SIZE, "one hash is one premaster secret");
  SHA512_CTX hash;
  SHA384_Init(&hash);
  SHA384_Update(&hash, label, sizeof(label));
  SHA384_Update(&hash, key->rsa.dp, sizeof(key->rsa.dp));
  SHA384_Update(&hash, key->rsa.dq, sizeof(key->rsa.dq));
  SHA384_Update(&hash, ciphertext, size);
  SHA384_Final(premaster, &hash);
  OPENSSL_cleanse(&hash, sizeof(hash));
}

void pkcs1_unpad_premaster(const kernel_key *key, const uint8_t *ciphertext, const uint8_t *block, size_t size,
                           uint8_t premaster[PREMASTER_SIZE]) {
  uint8_t synthetic[PREMASTER_SIZE];
  synthetic_premaster(key, ciphertext, size, synthetic);
  size_t separator = size - PREMASTER_SIZE - 1;
  uint32_t wrong = block[0] | (block[1] ^ 0x02u) | block[separator];
  for (size_t i = 2; i < separator; i++) wrong |= mask_if_zero(block[i]) & 1;
  uint32_t good = mask_if_zero(wrong);
  for (size_t i = 0; i < PREMASTER_SIZE; i++) {
    premaster[i] = (uint8_t)((block[separator + 1 + i] & good) | (synthetic[i] & ~good));
  }
  OPENSSL_cleanse(synthetic, sizeof(synthetic));
}
