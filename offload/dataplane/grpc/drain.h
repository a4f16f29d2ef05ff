/* Graceful shutdown of the front and of single connections. */
#ifndef OFFLOAD_GRPC_DRAIN_H
#define OFFLOAD_GRPC_DRAIN_H

#include "offload/dataplane/grpc/front.h"

struct call;
struct connection;

typedef enum drain_phase { DRAIN_NOT, DRAIN_NOTICE, DRAIN_FINAL } drain_phase;

/* What happens to a method's calls on a connection in DRAIN_FINAL. */
typedef enum drain_rule {
  DRAIN_LETS_END,   /* they end by themselves */
  DRAIN_ENDS,       /* they are ended at once: the client may start them elsewhere */
  DRAIN_ENDS_QUIET, /* they are ended once they have been quiet for a while; later, they are made quiet */
} drain_rule;

void drain_begin(front *front);
void drain_connection(struct connection *it);
void drain_go_away(struct connection *it);
void drain_acknowledged(struct connection *it);
void drain_turn(front *front); /* does what is due at front->now */
/* Whether a connection that has nothing left to do must be kept open for a little longer. */
bool drain_lingers(const struct connection *it);
/* Whether new operations are refused on the call. */
bool drain_refuses(const struct call *call);

#endif
