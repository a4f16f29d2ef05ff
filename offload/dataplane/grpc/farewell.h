/* Connections that are not served, or no longer. */
#ifndef OFFLOAD_GRPC_FAREWELL_H
#define OFFLOAD_GRPC_FAREWELL_H

#include "offload/dataplane/grpc/connection.h"

/* Counts the refusal, and says why in place of serving: the descriptor is the caller's to close. */
void farewell_refuse(front *front, int descriptor, refusal_reason reason, const caller *who);
void farewell_without_descriptors(int descriptor);
/* Ends a connection that was served: it hears why, and is closed when that has left. */
void farewell_end(connection *it, refusal_reason reason);

#endif
