/* How often a user without an identity has connected recently. */
#ifndef OFFLOAD_GRPC_ARRIVALS_H
#define OFFLOAD_GRPC_ARRIVALS_H

#include <sys/types.h>

#include "offload/dataplane/grpc/front.h"

struct listener;

enum { ARRIVAL_SLOTS = 64 };
typedef struct arrival {
  uint64_t user;
  uint32_t count;
  uint64_t counted_at;
} arrival;

bool arrivals_allow(front *front, const struct listener *from, uid_t uid);
void arrivals_note_stranger(front *front, const struct listener *from, uid_t uid);

#endif
