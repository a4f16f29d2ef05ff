/* The checks between a request and the queue.
 *
 * admission_take checks an operation of a call and either submits it or answers it at once with a status. NULL when
 * memory, or its user's share of it, ran out. `window` is given back to the peer when the answer has been sent. */
#ifndef OFFLOAD_SERVICE_ADMISSION_H
#define OFFLOAD_SERVICE_ADMISSION_H

#include "offload/dataplane/grpc/call.h"

operation *admission_take(call *call, const wire_operation *request, uint64_t deadline, uint32_t window);
bool admission_may_use(connection *connection, uint32_t identity);

#endif
