/* The checks between a request and the queue: is the key known, may this caller use it, may the key sign this? The
 * answer for an unknown key and for another caller's key is the same, so that callers cannot find out which keys exist.
 *
 * admission_take is the only way in for operations, completion.c the only way out.
 */
#include "offload/dataplane/service/admission.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/sign.h"
#include "offload/dataplane/access/authorize.h"
#include "offload/dataplane/access/keyring.h"
#include "offload/dataplane/access/refusals.h"
#include "offload/dataplane/grpc/budget.h"
#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/drain.h"
#include "offload/dataplane/grpc/principal.h"

/* ---- who ---- */

bool admission_may_use(connection *connection, uint32_t identity) {
  const keyring *ring = connection->front->ring;
  if (connection->verdicts == NULL || connection->verdicts_generation != ring->generation) {
    free(connection->verdicts);
    connection->verdicts = calloc(ring->identity_count, 1);
    connection->verdicts_generation = ring->generation;
    if (connection->verdicts == NULL) return false;
  }
  uint8_t *verdict = &connection->verdicts[identity];
  if (*verdict == 0) {
    const struct identity *it = &ring->identities[identity];
    *verdict = authorize_any(it->selectors, it->selector_count, &connection->caller) ? 2 : 1;
  }
  return *verdict == 2;
}

/* ---- what ---- */

typedef struct verdict {
  rpc_status status;
  refusal_reason reason;
  const char *message;
} verdict;

static const verdict accepted = {.status = RPC_OK};

_Static_assert(WIRE_INPUT_MAX == 512 * 1024, "the text below says so");

static verdict check_fields(const wire_operation *request) {
  const char *message = NULL;
  if (request->key_id.size != WIRE_KEY_ID_SIZE) message = "key_id must have 32 bytes";
  if (request->kind_unknown) message = "unknown kind of operation";
  if (request->input.size > WIRE_INPUT_MAX) message = "input is larger than 512 KiB";
  if (message == NULL) return accepted;
  return (verdict){RPC_INVALID_ARGUMENT, REFUSED_BAD_OPERATION, message};
}

/* Indexed by key_usage: the configured usage, and what it lets the key sign. */
static const char *const not_of_usage[] = {
    [USAGE_TLS13] = "this key's usage tls13 signs only TLS 1.3 CertificateVerify inputs, and the input is not one",
    [USAGE_TLS12_AND_13] = "this key's usage tls12+13 signs only TLS 1.2 and 1.3 handshakes, and the input is not one",
    [USAGE_ANY] = "this key's usage any does not allow this",
};
static const char *const no_digests[] = {
    [USAGE_TLS13] = "this key's usage tls13 signs no digests (prehashed); only usage any does",
    [USAGE_TLS12_AND_13] = "this key's usage tls12+13 signs no digests (prehashed); only usage any does",
    [USAGE_ANY] = "this key's usage any does not allow this",
};
static const char tls13_scheme[] =
    "the input is a TLS 1.3 CertificateVerify, where this key does not have the signature_scheme";

static verdict check_decrypt(const key_grant *grant, const wire_operation *request) {
  kernel_algorithm algorithm = kernel_key_algorithm(grant->key);
  bool is_rsa = algorithm <= KERNEL_RSA4096;
  if (!grant->decrypt) {
    return (verdict){RPC_PERMISSION_DENIED, REFUSED_USAGE,
                     is_rsa ? "the key's identity lacks 'decrypt: true', so the key may not decrypt"
                            : "the key's identity lacks 'decrypt: true', and only RSA keys can decrypt"};
  }
  if (!is_rsa || request->input.size != kernel_input_size(algorithm)) {
    return (verdict){RPC_INVALID_ARGUMENT, REFUSED_BAD_OPERATION,
                     "decryption requires an RSA key and a ciphertext as long as its modulus"};
  }
  return accepted;
}

static verdict check_sign(const key_grant *grant, const wire_operation *request) {
  uint32_t scheme = request->signature_scheme;
  kernel_algorithm algorithm = kernel_key_algorithm(grant->key);
  if (scheme > UINT16_MAX || !sign_scheme_fits((uint16_t)scheme, algorithm, true)) {
    return (verdict){RPC_INVALID_ARGUMENT, REFUSED_BAD_OPERATION,
                     "signature_scheme is unknown or does not match the key"};
  }
  if (grant->usage == USAGE_TLS13 && !sign_scheme_fits((uint16_t)scheme, algorithm, false)) {
    return (verdict){RPC_INVALID_ARGUMENT, REFUSED_BAD_OPERATION,
                     "signature_scheme matches the key only in TLS 1.2, but the key's usage is tls13"};
  }
  wire_view input = request->input;
  if (usage_allows(grant->usage, (uint16_t)scheme, algorithm, request->prehashed, input.data, input.size)) {
    return accepted;
  }
  const char *text = request->prehashed                             ? no_digests[grant->usage]
                     : usage_is_tls13_input(input.data, input.size) ? tls13_scheme
                                                                    : not_of_usage[grant->usage];
  return (verdict){RPC_PERMISSION_DENIED, REFUSED_USAGE, text};
}

/* Finds the key among those the caller may use. A key with several grants is used under the most permissive one, which
 * also gives the reason when none of them allows the operation. */
static verdict find_grant(connection *connection, const wire_operation *request, const key_grant **found) {
  const keyring *ring = connection->front->ring;
  const key_grant *grant = keyring_find_key(ring, request->key_id.data);
  verdict best = {RPC_NOT_FOUND, grant == NULL ? REFUSED_UNKNOWN_KEY : REFUSED_CALLER,
                  "no such key, or this caller may not use it"};
  for (; grant != NULL; grant = keyring_next_grant(ring, grant)) {
    if (!admission_may_use(connection, grant->identity)) continue;
    verdict its = request->decrypt ? check_decrypt(grant, request) : check_sign(grant, request);
    if (its.status != RPC_OK && *found != NULL && grant->usage <= (*found)->usage) continue;
    best = its;
    *found = grant;
    if (best.status == RPC_OK) break;
  }
  return best;
}

static verdict check(call *call, const wire_operation *request, const key_grant **grant) {
  verdict result = check_fields(request);
  if (result.status == RPC_OK) result = find_grant(call->connection, request, grant);
  if (result.status == RPC_OK && drain_refuses(call)) {
    result = (verdict){RPC_UNAVAILABLE, REFUSED_DRAINING, "the daemon is draining: reconnect and retry"};
  }
  return result;
}

/* ---- in ---- */

static void refuse(front *front, operation *op, verdict why, const wire_operation *request) {
  refused_request asked = {.key_id = request->key_id.size == WIRE_KEY_ID_SIZE ? request->key_id.data : NULL,
                           .operation = !request->kind_unknown,
                           .decrypt = request->decrypt,
                           .scheme = request->signature_scheme};
  refusals_add(front->refusals, why.reason, &op->call->connection->caller, &asked);
  op->status = (uint8_t)why.status;
  op->message = why.message;
}

/* The memory it will hold is charged to its user before anything else. */
static operation *new_operation(connection *connection, const wire_operation *request) {
  size_t memory = sizeof(operation) + (request->input.size > OPERATION_INLINE_INPUT ? request->input.size : 0);
  budget_spend(connection, WORK_OPERATION);
  if (!principal_charge(connection, memory)) {
    refusals_add(connection->front->refusals, REFUSED_USER_MEMORY, &connection->caller, NULL);
    return NULL;
  }
  operation *op = operation_new(&connection->front->operations);
  if (op == NULL) {
    principal_repay(connection, memory);
    return NULL;
  }
  op->memory = (uint32_t)memory;
  return op;
}

operation *admission_take(call *call, const wire_operation *request, uint64_t deadline, uint32_t window) {
  connection *connection = call->connection;
  front *front = connection->front;
  operation *op = new_operation(connection, request);
  if (op == NULL) return NULL;
  op->call = call;
  op->id = request->id;
  op->window = window;
  op->item.arrived = front->now;
  op->item.deadline.at = deadline;
  op->item.source = &connection->batch;
  call->held++;
  connection->held++;
  call->busy_at = front->now;

  const key_grant *grant = NULL;
  verdict result = check(call, request, &grant);
  if (grant != NULL) op->item.algorithm = (uint8_t)kernel_key_algorithm(grant->key);
  if (result.status == RPC_OK && !operation_set_input(op, request->input.data, request->input.size)) {
    result = (verdict){RPC_RESOURCE_EXHAUSTED, REFUSED_QUEUE_FULL, "out of memory"};
  }
  if (result.status != RPC_OK) {
    refuse(front, op, result, request);
    if (grant != NULL) counter_add_owned(&front->counters->classes[op->item.algorithm].operations[op->status][0], 1);
    call_answer(op);
    return op;
  }
  op->ring = keyring_retain(front->ring);
  op->sign.key = grant->key;
  op->identity = front->ring->identities[grant->identity].number;
  op->sign.scheme = (uint16_t)request->signature_scheme;
  op->sign.decrypt = request->decrypt;
  op->sign.prehashed = request->prehashed;
  op->fresh = true;
  list_push(&call->operations, &op->of_call);
  list_push(&front->submitted, &op->item.link);
  return op;
}
