/* Listening sockets. */
#ifndef OFFLOAD_GRPC_LISTENER_H
#define OFFLOAD_GRPC_LISTENER_H

#include "offload/dataplane/grpc/loop.h"

typedef struct listener {
  event_source source;
  list_node link;
  list_node arriving; /* in front->arriving while somebody may be in its queue */
  char *name;
} listener;

void listener_reported(front *front, listener *listener); /* somebody is in its queue */
void listeners_serve(front *front);                       /* takes them in, unless accepting rests */
uint64_t listeners_next(const front *front);              /* when there is somebody to take in, or NEVER */
/* Before it is closed, without a rest. true: there may be more than one turn's worth. */
bool listener_accept_last(front *front, listener *listener);
void listener_close(front *front, listener *listener);

#endif
