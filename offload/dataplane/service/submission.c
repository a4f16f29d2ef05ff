/* Hands the new operations of a turn to the work queue, under one lock; a lone short batch is run here at once
 * (shard.h). */
#include "offload/dataplane/service/submission.h"

#include "offload/dataplane/grpc/call.h"
#include "offload/dataplane/service/completion.h"

static const char queue_full[] = "the queue is full";
static const char connection_full[] = "too many operations of this connection";
static const char user_full[] = "too many operations of this user";

static void refuse_full(operation *op, batch_refusal why) {
  op->status = RPC_RESOURCE_EXHAUSTED;
  op->message = why == BATCH_QUEUE_FULL ? queue_full : why == BATCH_SOURCE_FULL ? connection_full : user_full;
}

static refusal_reason full_reason(const operation *op) {
  return op->message == queue_full        ? REFUSED_QUEUE_FULL
         : op->message == connection_full ? REFUSED_CONNECTION_QUEUE_FULL
                                          : REFUSED_USER_QUEUE_FULL;
}

static void run_lone(front *front, const batch *taken) {
  work_queue_run(front->work, taken, front->workspace);
  pthread_mutex_lock(&front->work->lock);
  batcher_complete(&front->work->batcher, taken->items, taken->count);
  pthread_mutex_unlock(&front->work->lock);
  for (unsigned i = 0; i < taken->count; i++) completion_of(front, LIST_ENTRY(taken->items[i], operation, item));
}

void submission_of_turn(front *front) {
  batch lone;
  list_node refused;
  list_init(&refused);
  pthread_mutex_lock(&front->work->lock);
  for (list_node *node; (node = list_pop(&front->submitted)) != NULL;) {
    operation *op = LIST_ENTRY(node, operation, item.link);
    op->fresh = false;
    batch_refusal answer = batcher_submit(&front->work->batcher, &op->item);
    if (answer == BATCH_ACCEPTED) continue;
    refuse_full(op, answer);
    list_push(&refused, node);
  }
  bool is_lone = front->workspace != NULL && work_queue_take_lone(front->work, front->now, &lone);
  if (!is_lone) work_queue_wake(front->work, front->now);
  pthread_mutex_unlock(&front->work->lock);
  if (is_lone) run_lone(front, &lone);
  for (list_node *node; (node = list_pop(&refused)) != NULL;) {
    operation *op = LIST_ENTRY(node, operation, item.link);
    completion_count_refusal(front, op, full_reason(op));
    completion_of(front, op);
  }
}
