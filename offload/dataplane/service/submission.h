/* New operations on their way to the work queue. */
#ifndef OFFLOAD_SERVICE_SUBMISSION_H
#define OFFLOAD_SERVICE_SUBMISSION_H

#include "offload/dataplane/grpc/loop.h"

/* Hands over what was decoded in this turn; what the queue has no place for is answered. */
void submission_of_turn(front *front);

#endif
