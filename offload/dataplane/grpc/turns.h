/* Whose turn it is. */
#ifndef OFFLOAD_GRPC_TURNS_H
#define OFFLOAD_GRPC_TURNS_H

#include "offload/dataplane/grpc/connection.h"

void turns_add(connection *it);          /* it has something to process */
void turns_add_writing(connection *it);  /* it may have something to be sent */
void turns_remove(connection *it);       /* from both lines */
void turns_serve(front *front);          /* serves all; also writes to strangers */
void turns_write(front *front);          /* writes to all others */
uint64_t turns_next(const front *front); /* when the next user is to be served or written to: 0 for now, or NEVER */

#endif
