/* The submission of new operations to the work queue. */
#ifndef OFFLOAD_SERVICE_SUBMISSION_H
#define OFFLOAD_SERVICE_SUBMISSION_H

#include "offload/dataplane/grpc/loop.h"

/* Submits the operations decoded in this turn; those that the queue refuses are answered. */
void submission_of_turn(front *front);

#endif
