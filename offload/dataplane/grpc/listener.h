/* Listening sockets. */
#ifndef OFFLOAD_GRPC_LISTENER_H
#define OFFLOAD_GRPC_LISTENER_H

#include "offload/dataplane/grpc/loop.h"

typedef struct listener {
  event_source source;
  list_node link;
  list_node arriving; /* in front->arriving while its queue may not be empty */
  char *name;
} listener;

void listener_reported(front *front, listener *listener); /* its queue is not empty */
void listeners_serve(front *front);                       /* accepts connections, unless accepting rests */
uint64_t listeners_next(const front *front);              /* when there may be a connection to accept, or NEVER */
/* Accepts without a rest, before the listener is closed. True when there may be more than fits in one turn. */
bool listener_accept_last(front *front, listener *listener);
void listener_close(front *front, listener *listener);

#endif
