/* The HTTP/2 session of a connection. */
#ifndef OFFLOAD_GRPC_SESSION_H
#define OFFLOAD_GRPC_SESSION_H

#include "offload/dataplane/grpc/connection.h"

bool session_setup(front *front, char error[KERNEL_ERROR_MAX]);
bool session_open(connection *it);
uint32_t session_streams(const connection *it); /* how many calls it may have open */

#endif
