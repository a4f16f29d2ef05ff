/* What other threads ask of the front. These calls may come from any thread, one at a time, started or not; they
 * return when the front has done it. */
#ifndef OFFLOAD_GRPC_CONTROL_H
#define OFFLOAD_GRPC_CONTROL_H

#include "offload/dataplane/grpc/front.h"

/* Whether uses of keys are counted; false when memory ran out. */
bool front_count_key_uses(front *front, bool count);
/* As key_uses_take. */
unsigned front_take_key_uses(front *front, key_use taken[], uint64_t *unlisted);
bool front_add_listener(front *front, const char *name, int descriptor, char error[KERNEL_ERROR_MAX]);
bool front_remove_listener(front *front, const char *name); /* false: there is none of that name */
void front_set_keyring(front *front, keyring *ring);        /* takes the reference over */
void front_drain(front *front);
bool front_is_draining(const front *front);
/* Whether all calls have ended and all connections are closed, at the latest after that time. */
bool front_wait_drained(front *front, uint64_t timeout_ns);

#endif
