/* Completes an operation that has been run, has expired, or did not fit into the queue: sets its status, counts it,
 * notes its use of a key for the audit log, and adds it to the answers of its call.
 */
#include "offload/dataplane/service/completion.h"

#include "kernels/sign.h"
#include "offload/dataplane/access/key_uses.h"
#include "offload/dataplane/grpc/call.h"

void completion_count_refusal(front *front, const operation *op, refusal_reason reason) {
  refused_request asked = {
      .key_id = kernel_key_id(op->sign.key), .operation = true, .decrypt = op->sign.decrypt, .scheme = op->sign.scheme};
  refusals_add(front->refusals, reason, &op->call->connection->caller, &asked);
}

static void settle_status(front *front, operation *op) {
  if (op->status != RPC_OK) return; /* refused by the queue */
  if (op->expired) {
    op->status = RPC_DEADLINE_EXCEEDED;
    op->message = "the deadline passed before the operation was started";
    completion_count_refusal(front, op, REFUSED_DEADLINE);
    return;
  }
  switch (op->sign.status) {
    case SIGN_OK: break;
    case SIGN_BAD_SCHEME:
    case SIGN_BAD_INPUT:
      op->status = RPC_INVALID_ARGUMENT;
      op->message = "the input does not match the key and scheme (size of a digest or ciphertext)";
      break;
    default:
      op->status = RPC_INTERNAL;
      op->message = "the operation failed in every backend";
      completion_count_refusal(front, op, REFUSED_FAULT);
  }
}

void completion_of(front *front, operation *op) {
  call *call = op->call;
  class_counters *counters = &front->counters->classes[op->item.algorithm];
  settle_status(front, op);
  bool wanted = !call->finished;
  unsigned ran_on = op->started == 0 ? 0 : op->backend + 1u;
  counter_add_owned(&counters->operations[wanted ? op->status : RPC_CANCELLED][ran_on], 1);
  if (front->uses != NULL && op->started != 0) {
    key_use_kind kind = {.key_id = kernel_key_id(op->sign.key),
                         .identity = op->identity,
                         .scheme = op->sign.scheme,
                         .status = op->status,
                         .backend = op->backend,
                         .decrypt = op->sign.decrypt};
    key_uses_add(front->uses, &call->connection->caller, &kind);
  }
  if (op->started != 0) {
    uint64_t queued = op->started > op->item.arrived ? op->started - op->item.arrived : 0;
    counter_add_owned(&counters->queue.buckets[histogram_bucket(queued)], 1);
    counter_add_owned(&counters->queue.sum_ns, queued);
  }
  if (!wanted) {
    call_release_operation(call, op);
    return;
  }
  call->busy_at = front->now;
  list_remove(&op->of_call);
  call_answer(op);
}
