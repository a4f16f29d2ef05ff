/* Timeouts of connections. */
#ifndef OFFLOAD_GRPC_TIMEOUTS_H
#define OFFLOAD_GRPC_TIMEOUTS_H

#include "offload/dataplane/grpc/connection.h"

uint64_t timeouts_next(const front *front);
void timeouts_pass(front *front);
void timeouts_note_idle(connection *it);
void timeouts_note_sent(connection *it, bool progressed);

#endif
