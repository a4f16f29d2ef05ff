#include "offload/dataplane/batching/operation.h"

#include <stdlib.h>
#include <string.h>

enum { OPERATIONS_PER_CHUNK = 64 };

void operation_pool_init(operation_pool *pool) {
  *pool = (operation_pool){0};
}

void operation_pool_free(operation_pool *pool) {
  for (size_t i = 0; i < pool->chunk_count; i++) free(pool->chunks[i]);
  free(pool->chunks);
  *pool = (operation_pool){0};
}

static bool add_chunk(operation_pool *pool) {
  void **chunks = realloc(pool->chunks, (pool->chunk_count + 1) * sizeof *chunks);
  if (chunks == NULL) return false;
  pool->chunks = chunks;
  operation *chunk = aligned_alloc(64, OPERATIONS_PER_CHUNK * sizeof *chunk);
  if (chunk == NULL) return false;
  pool->chunks[pool->chunk_count++] = chunk;
  for (unsigned i = 0; i < OPERATIONS_PER_CHUNK; i++) {
    chunk[i].next = pool->free;
    pool->free = &chunk[i];
  }
  return true;
}

operation *operation_new(operation_pool *pool) {
  if (pool->free == NULL && !add_chunk(pool)) return NULL;
  operation *op = pool->free;
  pool->free = op->next;
  memset(op, 0, offsetof(operation, sign)); /* not the output and input buffers behind it */
  op->sign.output_size = 0;
  op->long_input = NULL;
  list_init(&op->item.link);
  list_init(&op->of_call);
  op->item.deadline.at = NEVER;
  return op;
}

bool operation_set_input(operation *op, const uint8_t *input, size_t size) {
  uint8_t *to = op->input;
  if (size > sizeof op->input) {
    to = op->long_input = malloc(size);
    if (to == NULL) return false;
  }
  if (size > 0) memcpy(to, input, size);
  op->sign.input = to;
  op->sign.input_size = size;
  return true;
}

void operation_release(operation_pool *pool, operation *op) {
  if (op->ring != NULL && op->sign.decrypt) explicit_bzero(op->sign.output, sizeof op->sign.output);
  free(op->long_input);
  keyring_release(op->ring);
  op->next = pool->free;
  pool->free = op;
}
