/* A bound on frames that carry nothing. */
#ifndef OFFLOAD_GRPC_FLOOD_H
#define OFFLOAD_GRPC_FLOOD_H

#include "offload/dataplane/grpc/connection.h"

void flood_control_frame(connection *it, uint32_t cost);

#endif
