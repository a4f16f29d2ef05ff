/* Request messages from DATA frames. */
#ifndef OFFLOAD_GRPC_MESSAGE_H
#define OFFLOAD_GRPC_MESSAGE_H

#include "offload/dataplane/grpc/call.h"

enum {
  CONNECTION_BUFFER_MAX = 4 * 1024 *
      1024, /* request bytes buffered for one connection: unfinished or paused messages */
};

void message_receive(call *it, const uint8_t *data, size_t size);
void message_resume(call *it);
void message_free_buffer(call *it);
bool message_is_cut_short(const call *it);
static inline void message_write_header(uint8_t *to, size_t size) {
  to[0] = 0; /* not compressed */
  for (unsigned i = 0; i < 4; i++) to[1 + i] = (uint8_t)(size >> (24 - 8 * i));
}

#endif
