/* Writing to one connection. */
#ifndef OFFLOAD_GRPC_WRITING_H
#define OFFLOAD_GRPC_WRITING_H

#include "offload/dataplane/grpc/connection.h"

enum {
  WRITE_SIZE = 128 * 1024,
  FRAME_MAX = 32 * 1024, /* more than nghttp2 makes at once: a DATA frame of 16 KiB */
};

void writing_flush(connection *it);
void writing_free_unsent(connection *it);

#endif
