/* An operation's result as it is encoded on the wire. */
#ifndef OFFLOAD_SERVICE_RESULT_H
#define OFFLOAD_SERVICE_RESULT_H

#include "offload/dataplane/batching/shard.h"
#include "offload/dataplane/wire/wire.h"

enum { RESULT_MAX = SIGN_OUTPUT_MAX + 256 }; /* one encoded result: output, a static message, numbers */

/* The backend that ran it, as the protocol numbers them. */
uint32_t result_backend(const work_queue *work, const operation *op);

#endif
