/* The data plane as the daemon drives it (_dataplane.pyx): one front, some shards, one keyring in force. Any thread may
 * make any call; only calibrate and benchmark run operations on the calling thread.
 */
#ifndef OFFLOAD_DATAPLANE_H
#define OFFLOAD_DATAPLANE_H

#include "offload/dataplane/access/key_uses.h"
#include "offload/dataplane/access/keyring.h"
#include "offload/dataplane/access/refusals.h"
#include "offload/dataplane/batching/calibrate.h"
#include "offload/dataplane/batching/counters.h"

typedef struct dataplane dataplane;

typedef struct dataplane_settings {
  uint32_t shards;
  uint32_t max_wait_us;
  uint32_t queue_limit;
  uint32_t connection_queue_limit;
  uint32_t user_queue_limit;
  uint32_t max_connections;
  uint32_t max_connections_per_user;
  uint32_t max_connections_without_identity;
  uint32_t max_streams_per_connection;
  uint32_t user_memory_mib;
  uint32_t idle_timeout_ms;
  uint32_t stalled_timeout_ms;
  uint32_t drain_timeout_ms;
  const char *backend; /* "auto", or the name of a backend */
} dataplane_settings;

dataplane *dataplane_new(const dataplane_settings *settings, char error[KERNEL_ERROR_MAX]);
void dataplane_free(dataplane *plane); /* stops it first; NULL is allowed */

bool dataplane_add_listener(dataplane *plane, const char *name, int descriptor, char error[KERNEL_ERROR_MAX]);
bool dataplane_remove_listener(dataplane *plane, const char *name, char error[KERNEL_ERROR_MAX]);
bool dataplane_set_keyring(dataplane *plane, keyring *ring,
                           char error[KERNEL_ERROR_MAX]); /* takes ownership of `ring` in any case */
/* Replaces the limits of the settings, which remain the upper bounds. Allowed while running. */
bool dataplane_set_limits(dataplane *plane, uint32_t max_wait_us, uint32_t queue_limit, char error[KERNEL_ERROR_MAX]);
/* For the audit log: sets whether uses of keys are counted; takes what was counted since the last call (key_uses.h). */
bool dataplane_count_key_uses(dataplane *plane, bool count, char error[KERNEL_ERROR_MAX]);
unsigned dataplane_take_key_uses(dataplane *plane, key_use taken[], uint64_t *unlisted); /* 0 when it is stopped */
bool dataplane_calibrate(dataplane *plane, char error[KERNEL_ERROR_MAX]);
bool dataplane_start(dataplane *plane, char error[KERNEL_ERROR_MAX]);
bool dataplane_drain(dataplane *plane, char error[KERNEL_ERROR_MAX]);
bool dataplane_wait_drained(dataplane *plane, double timeout_seconds); /* true also when it is stopped */
void dataplane_stop(dataplane *plane);                                 /* permanently; may be repeated */

/* A copy of the numbers; the counters themselves are read in place. */
typedef struct dataplane_numbers {
  uint32_t queued;
  uint32_t queued_by_class[KERNEL_ALGORITHMS];
  bool draining;
  unsigned backends;
  const char *backend_names[COST_BACKENDS_MAX];
  cost_model costs;
  unsigned crossover[KERNEL_ALGORITHMS];
} dataplane_numbers;

void dataplane_read(dataplane *plane, dataplane_numbers *numbers);
const counters *dataplane_counters(const dataplane *plane);
refusal_log *dataplane_refusals(dataplane *plane);

/* Sets PR_SET_DUMPABLE and RLIMIT_CORE to 0. False with errno. */
bool dataplane_harden_process(void);

const char *batch_reason_name(batch_reason reason);

#endif
