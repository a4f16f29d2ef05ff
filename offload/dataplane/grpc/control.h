/* Requests of other threads to the front. Any thread may make these calls, one at a time, whether the front is started
 * or not; they return when the request has been carried out. */
#ifndef OFFLOAD_GRPC_CONTROL_H
#define OFFLOAD_GRPC_CONTROL_H

#include "offload/dataplane/grpc/front.h"

/* Sets whether uses of keys are counted; false when memory ran out. */
bool front_count_key_uses(front *front, bool count);
/* Does what key_uses_take does. */
unsigned front_take_key_uses(front *front, key_use taken[], uint64_t *unlisted);
bool front_add_listener(front *front, const char *name, int descriptor, char error[KERNEL_ERROR_MAX]);
bool front_remove_listener(front *front, const char *name); /* false when no listener has that name */
void front_set_keyring(front *front, keyring *ring);        /* takes ownership of the reference */
void front_drain(front *front);
bool front_is_draining(const front *front);
/* Waits until all calls have ended and all connections are closed; false when that takes longer than the timeout. */
bool front_wait_drained(front *front, uint64_t timeout_ns);

#endif
