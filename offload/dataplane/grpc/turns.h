/* Who is dealt with next. */
#ifndef OFFLOAD_GRPC_TURNS_H
#define OFFLOAD_GRPC_TURNS_H

#include "offload/dataplane/grpc/connection.h"

void turns_add(connection *it);          /* something of it waits to be dealt with */
void turns_add_writing(connection *it);  /* something may wait to be sent to it */
void turns_remove(connection *it);       /* from both */
void turns_serve(front *front);          /* also writes to strangers */
void turns_write(front *front);          /* to all others */
uint64_t turns_next(const front *front); /* when there is somebody to serve or to write to: 0 for now, or NEVER */

#endif
