/* The completion of operations. */
#ifndef OFFLOAD_SERVICE_COMPLETION_H
#define OFFLOAD_SERVICE_COMPLETION_H

#include "offload/dataplane/access/refusals.h"
#include "offload/dataplane/batching/operation.h"
#include "offload/dataplane/grpc/loop.h"

/* Completes an accepted operation that has been run, has expired, or was refused by the queue. */
void completion_of(front *front, operation *op);
/* Counts that an operation was refused after it had been accepted. */
void completion_count_refusal(front *front, const operation *op, refusal_reason reason);

#endif
