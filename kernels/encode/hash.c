#include "kernels/encode/hash.h"

#include <openssl/sha2.h>

size_t hash_size(hash_algorithm hash) {
  switch (hash) {
    case HASH_SHA256: return SHA256_DIGEST_LENGTH;
    case HASH_SHA384: return SHA384_DIGEST_LENGTH;
    default: return SHA512_DIGEST_LENGTH;
  }
}

static void sha256(const hash_piece pieces[], size_t count, uint8_t *digest) {
  SHA256_CTX context;
  SHA256_Init(&context);
  for (size_t i = 0; i < count; i++) SHA256_Update(&context, pieces[i].data, pieces[i].size);
  SHA256_Final(digest, &context);
}

static void sha384(const hash_piece pieces[], size_t count, uint8_t *digest) {
  SHA512_CTX context;
  SHA384_Init(&context);
  for (size_t i = 0; i < count; i++) SHA384_Update(&context, pieces[i].data, pieces[i].size);
  SHA384_Final(digest, &context);
}

static void sha512(const hash_piece pieces[], size_t count, uint8_t *digest) {
  SHA512_CTX context;
  SHA512_Init(&context);
  for (size_t i = 0; i < count; i++) SHA512_Update(&context, pieces[i].data, pieces[i].size);
  SHA512_Final(digest, &context);
}

void hash_pieces(hash_algorithm hash, const hash_piece pieces[], size_t count, uint8_t digest[HASH_MAX]) {
  switch (hash) {
    case HASH_SHA256: sha256(pieces, count, digest); break;
    case HASH_SHA384: sha384(pieces, count, digest); break;
    case HASH_SHA512: sha512(pieces, count, digest); break;
  }
}

void hash_digest(hash_algorithm hash, const uint8_t *input, size_t size, uint8_t digest[HASH_MAX]) {
  hash_pieces(hash, &(hash_piece){input, size}, 1, digest);
}
