/* One operation, from the message that requests it to the frame that carries its answer. Operations are pooled and
 * belong to the front thread, except that while one is queued or runs, the batcher and a shard may access `item`,
 * `sign` and the times.
 */
#ifndef OFFLOAD_OPERATION_H
#define OFFLOAD_OPERATION_H

#include "kernels/sign.h"
#include "offload/dataplane/access/keyring.h"
#include "offload/dataplane/batching/batcher.h"
#include "offload/dataplane/wire/status.h"

/* The inputs of TLS 1.3 (130 or 146 bytes) and of TLS 1.2's ServerKeyExchange (up to 201) fit in; longer ones are
 * allocated. */
enum { OPERATION_INLINE_INPUT = 224 };

struct call;

typedef struct operation {
  batch_item item;
  struct operation *next; /* in the pool's free list, or in a chain of completions */
  struct call *call;
  list_node of_call;         /* in call->operations until answered, then in call->answers */
  struct operation *same_id; /* next in the call's table of ids */
  keyring *ring;             /* holds the key; NULL for an operation that was refused */
  uint64_t id;
  uint64_t started, finished; /* monotonic ns; 0 when it was not run */
  const char *message;        /* static text; NULL when it is answered OK */
  uint32_t window;            /* bytes of flow-control window to give back when the answer has been sent */
  uint32_t memory;            /* charged to its user */
  uint32_t identity;          /* the number of the identity by which the caller may use the key */
  uint8_t status;             /* rpc_status */
  uint8_t batch_size;
  uint8_t backend; /* index in the cost model */
  bool fresh;      /* in the front's list of new operations */
  bool expired;    /* the deadline passed before it was run */
  bool answered;   /* in call->answers, waiting to be sent */
  sign_operation sign;
  uint8_t *long_input; /* NULL: in `input` */
  uint8_t input[OPERATION_INLINE_INPUT];
} operation;

/* Operations of one thread: chunks that are kept until the pool is freed, and a free list. */
typedef struct operation_pool {
  operation *free;
  void **chunks;
  size_t chunk_count;
} operation_pool;

void operation_pool_init(operation_pool *pool);
void operation_pool_free(operation_pool *pool);

/* Returns an operation with its lists and fields reset, or NULL when memory ran out. */
operation *operation_new(operation_pool *pool);

/* Copies the input in; false when memory ran out. */
bool operation_set_input(operation *op, const uint8_t *input, size_t size);

/* Returns it to the pool: wipes a decrypted plaintext and releases the keyring. */
void operation_release(operation_pool *pool, operation *op);

#endif
