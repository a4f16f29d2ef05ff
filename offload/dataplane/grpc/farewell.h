/* Connections that are rejected or ended. */
#ifndef OFFLOAD_GRPC_FAREWELL_H
#define OFFLOAD_GRPC_FAREWELL_H

#include "offload/dataplane/grpc/connection.h"

/* Counts the refusal and sends the reason; closing the descriptor is left to the caller. */
void farewell_refuse(front *front, int descriptor, refusal_reason reason, const caller *who);
void farewell_without_descriptors(int descriptor);
/* Ends a connection that was served: it is told why, and closed once that has been sent. */
void farewell_end(connection *it, refusal_reason reason);

#endif
