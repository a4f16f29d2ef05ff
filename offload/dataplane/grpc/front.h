/* The gRPC server of the hot path: HTTP/2 with prior knowledge on Unix sockets, one thread, no Python.
 *
 * One turn of its loop: wait; give every user that has sent something a share of the turn, and in it each connection
 * its turn to be read from and decoded; take finished operations; hand all new operations to the work queue under one
 * lock; write once per connection that has something to say.
 */
#ifndef OFFLOAD_GRPC_FRONT_H
#define OFFLOAD_GRPC_FRONT_H

#include "offload/dataplane/access/key_uses.h"
#include "offload/dataplane/access/keyring.h"
#include "offload/dataplane/access/refusals.h"
#include "offload/dataplane/batching/shard.h"

typedef struct front front;

typedef struct front_settings {
  uint32_t max_connections;
  uint32_t max_connections_per_user;
  uint32_t max_connections_without_identity; /* of all such callers; the rest is kept for those that have one */
  uint32_t max_streams;                      /* per connection */
  uint32_t connection_queue_limit;
  size_t user_memory; /* bytes held for one user, and for all callers without an identity together */
  uint64_t idle_timeout_ns;
  uint64_t stalled_timeout_ns;
  uint64_t drain_timeout_ns;
} front_settings;

/* NULL with the reason in `error`. The rest stays the caller's. */
front *front_new(const front_settings *settings, work_queue *work, counters *counters, refusal_log *refusals,
                 char error[KERNEL_ERROR_MAX]);

/* After the thread has ended and the shards have been joined. */
void front_free(front *front);

bool front_start(front *front, char error[KERNEL_ERROR_MAX]);

/* Closes all connections and ends the thread. Operations that run are answered to nobody. */
void front_stop(front *front);

/* The calls below may come from any thread, one at a time, started or not; they return when the front has done it. */
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
