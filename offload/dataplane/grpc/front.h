/* The gRPC server of the hot path: HTTP/2 with prior knowledge on Unix sockets, one thread, no Python.
 *
 * One turn of its loop: wait for events; give every user that has sent something a share of the turn, in which its
 * connections are read from and decoded one after the other; take finished operations; hand all new operations to the
 * work queue under one lock; write once to each connection that has something to send.
 */
#ifndef OFFLOAD_GRPC_FRONT_H
#define OFFLOAD_GRPC_FRONT_H

#include "offload/dataplane/access/key_uses.h"
#include "offload/dataplane/access/keyring.h"
#include "offload/dataplane/access/refusals.h"
#include "offload/dataplane/batching/shard.h"

typedef struct front front;
struct call_method;

/* The service behind the front. All of it runs on the front's thread. */
typedef struct front_service {
  const struct call_method *(*find)(const uint8_t *path, size_t size); /* NULL when there is no such method */
  void (*submit_all)(front *front);                                    /* submits the operations of this turn */
  void (*done)(front *front, operation *op);                           /* called when it has been run, or has expired */
} front_service;

typedef struct front_settings {
  uint32_t max_connections;
  uint32_t max_connections_per_user;
  uint32_t max_connections_without_identity; /* of all such callers; the rest is for those with one */
  uint32_t max_streams;                      /* per connection */
  uint32_t connection_queue_limit;
  size_t user_memory; /* bytes held for one user, and for all callers without an identity together */
  uint64_t idle_timeout_ns;
  uint64_t stalled_timeout_ns;
  uint64_t drain_timeout_ns;
} front_settings;

/* NULL with the reason in `error`. The caller keeps ownership of everything passed. */
front *front_new(const front_settings *settings, const front_service *service, work_queue *work, counters *counters,
                 refusal_log *refusals, char error[KERNEL_ERROR_MAX]);

/* To be called after the thread has ended and the shards have been joined. */
void front_free(front *front);

bool front_start(front *front, char error[KERNEL_ERROR_MAX]);

/* Closes all connections and ends the thread. The results of running operations are discarded. */
void front_stop(front *front);

#endif
