#include "offload/dataplane/dataplane.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "kernels/kernels.h"
#include "offload/dataplane/batching/shard.h"
#include "offload/dataplane/grpc/control.h"
#include "offload/dataplane/grpc/front.h"
#include "offload/dataplane/host/monotonic.h"
#include "offload/dataplane/service/private_key_service.h"

typedef enum phase { PHASE_NEW, PHASE_RUNNING, PHASE_STOPPED } phase;

struct dataplane {
  dataplane_settings settings;
  pthread_mutex_t lock; /* one control call at a time */
  phase phase;
  bool calibrated;
  counters counters;
  refusal_log refusals;
  work_queue work;
  unsigned backends;
  int only; /* index of the one backend that was requested, or -1 */
  front *front;
  shard **shards;
  unsigned shard_count;
};

/* ---- creation ---- */

static bool choose_backends(dataplane *it, const char *wanted, char error[KERNEL_ERROR_MAX]) {
  const kernel_backend *forced = kernel_backend_forced();
  if (strcmp(wanted, "auto") == 0 && forced != NULL) wanted = forced->name;
  bool any = strcmp(wanted, "auto") == 0;
  it->work.backends[0] = &kernel_software;
  it->backends = 1;
  it->only = any ? -1 : 0;
  for (size_t i = 0; kernel_backends[i] != NULL; i++) {
    const kernel_backend *backend = kernel_backends[i];
    if (backend == &kernel_software || it->backends == COST_BACKENDS_MAX) continue;
    if (kernel_backend_by_name(backend->name) == NULL) continue; /* this host does not support it */
    if (!any && strcmp(wanted, backend->name) != 0) continue;
    if (!any) it->only = (int)it->backends;
    it->work.backends[it->backends++] = backend;
  }
  if (any || it->only > 0 || strcmp(wanted, kernel_software.name) == 0) return true;
  snprintf(error, KERNEL_ERROR_MAX, "backend '%.40s' does not exist or cannot run on this host; use auto or software",
           wanted);
  return false;
}

static bool check_settings(const dataplane_settings *settings, char error[KERNEL_ERROR_MAX]) {
  const char *zero = settings->shards == 0                             ? "shards"
                     : settings->queue_limit == 0                      ? "queue_limit"
                     : settings->connection_queue_limit == 0           ? "connection_queue_limit"
                     : settings->user_queue_limit == 0                 ? "user_queue_limit"
                     : settings->max_connections == 0                  ? "max_connections"
                     : settings->max_connections_per_user == 0         ? "max_connections_per_user"
                     : settings->max_connections_without_identity == 0 ? "max_connections_without_identity"
                     : settings->max_streams_per_connection == 0       ? "max_streams_per_connection"
                     : settings->user_memory_mib == 0                  ? "user_memory_mib"
                     : settings->idle_timeout_ms == 0                  ? "idle_timeout_ms"
                     : settings->stalled_timeout_ms == 0               ? "stalled_timeout_ms"
                                                                       : NULL;
  if (zero != NULL) snprintf(error, KERNEL_ERROR_MAX, "%s must be at least 1", zero);
  return zero == NULL;
}

static bool set_up(dataplane *it, char error[KERNEL_ERROR_MAX]) {
  const dataplane_settings *settings = &it->settings;
  front_settings of_front = {.max_connections = settings->max_connections,
                             .max_connections_per_user = settings->max_connections_per_user,
                             .max_connections_without_identity = settings->max_connections_without_identity,
                             .max_streams = settings->max_streams_per_connection,
                             .connection_queue_limit = settings->connection_queue_limit,
                             .user_memory = (size_t)settings->user_memory_mib << 20,
                             .idle_timeout_ns = 1000000ull * settings->idle_timeout_ms,
                             .stalled_timeout_ns = 1000000ull * settings->stalled_timeout_ms,
                             .drain_timeout_ns = 1000000ull * settings->drain_timeout_ms};
  if (!choose_backends(it, settings->backend, error)) return false;
  it->shards = calloc(settings->shards, sizeof *it->shards);
  if (it->shards == NULL) {
    snprintf(error, KERNEL_ERROR_MAX, "out of memory");
    return false;
  }
  it->front = front_new(&of_front, &private_key_service, &it->work, &it->counters, &it->refusals, error);
  return it->front != NULL;
}

dataplane *dataplane_new(const dataplane_settings *settings, char error[KERNEL_ERROR_MAX]) {
  if (!check_settings(settings, error)) return NULL;
  dataplane *it = calloc(1, sizeof *it);
  if (it == NULL || !work_queue_init(&it->work, settings->queue_limit, settings->connection_queue_limit,
                                     settings->user_queue_limit, 1000ull * settings->max_wait_us)) {
    snprintf(error, KERNEL_ERROR_MAX, "out of memory");
    free(it);
    return NULL;
  }
  it->settings = *settings;
  it->work.counters = &it->counters;
  pthread_mutex_init(&it->lock, NULL);
  refusals_init(&it->refusals);
  if (set_up(it, error)) {
    it->settings.backend = NULL; /* the string is the caller's */
    return it;
  }
  dataplane_free(it);
  return NULL;
}

/* ---- running ---- */

/* Takes the lock; fails when it is stopped. */
static bool enter(dataplane *it, char error[KERNEL_ERROR_MAX]) {
  pthread_mutex_lock(&it->lock);
  if (it->phase != PHASE_STOPPED) return true;
  pthread_mutex_unlock(&it->lock);
  snprintf(error, KERNEL_ERROR_MAX, "the data plane is stopped");
  return false;
}

static bool leave(dataplane *it, bool result) {
  pthread_mutex_unlock(&it->lock);
  return result;
}

bool dataplane_add_listener(dataplane *it, const char *name, int descriptor, char error[KERNEL_ERROR_MAX]) {
  return enter(it, error) && leave(it, front_add_listener(it->front, name, descriptor, error));
}

bool dataplane_remove_listener(dataplane *it, const char *name, char error[KERNEL_ERROR_MAX]) {
  if (!enter(it, error)) return false;
  bool removed = front_remove_listener(it->front, name);
  if (!removed) snprintf(error, KERNEL_ERROR_MAX, "there is no listener '%.100s'", name);
  return leave(it, removed);
}

bool dataplane_set_keyring(dataplane *it, keyring *ring, char error[KERNEL_ERROR_MAX]) {
  if (!enter(it, error)) {
    keyring_release(ring);
    return false;
  }
  front_set_keyring(it->front, ring);
  return leave(it, true);
}

static bool set_limits_locked(dataplane *it, uint32_t max_wait_us, uint32_t queue_limit, char error[KERNEL_ERROR_MAX]) {
  const dataplane_settings *most = &it->settings;
  if (queue_limit == 0 || queue_limit > most->queue_limit || max_wait_us > most->max_wait_us) {
    snprintf(error, KERNEL_ERROR_MAX, "limits must be within the settings: max_wait_us %u, queue_limit 1 to %u",
             most->max_wait_us, most->queue_limit);
    return false;
  }
  pthread_mutex_lock(&it->work.lock);
  batcher_limit(&it->work.batcher, queue_limit, 1000ull * max_wait_us);
  work_queue_wake(&it->work, monotonic_ns()); /* a batch that waited for more may be due now */
  pthread_mutex_unlock(&it->work.lock);
  return true;
}

bool dataplane_set_limits(dataplane *it, uint32_t max_wait_us, uint32_t queue_limit, char error[KERNEL_ERROR_MAX]) {
  return enter(it, error) && leave(it, set_limits_locked(it, max_wait_us, queue_limit, error));
}

bool dataplane_count_key_uses(dataplane *it, bool count, char error[KERNEL_ERROR_MAX]) {
  if (!enter(it, error)) return false;
  bool done = front_count_key_uses(it->front, count);
  if (!done) snprintf(error, KERNEL_ERROR_MAX, "out of memory");
  return leave(it, done);
}

unsigned dataplane_take_key_uses(dataplane *it, key_use taken[], uint64_t *unlisted) {
  char unused[KERNEL_ERROR_MAX];
  *unlisted = 0;
  if (!enter(it, unused)) return 0;
  unsigned used = front_take_key_uses(it->front, taken, unlisted);
  leave(it, true);
  return used;
}

static bool calibrate_locked(dataplane *it, char error[KERNEL_ERROR_MAX]) {
  cost_model measured;
  if (!calibrate(&measured, it->work.backends, it->backends, it->only, error)) return false;
  pthread_mutex_lock(&it->work.lock);
  it->work.costs = measured;
  pthread_mutex_unlock(&it->work.lock);
  it->calibrated = true;
  return true;
}

bool dataplane_calibrate(dataplane *it, char error[KERNEL_ERROR_MAX]) {
  return enter(it, error) && leave(it, calibrate_locked(it, error));
}

static bool start_locked(dataplane *it, char error[KERNEL_ERROR_MAX]) {
  if (it->phase == PHASE_RUNNING) {
    snprintf(error, KERNEL_ERROR_MAX, "the data plane is already running");
    return false;
  }
  if (!it->calibrated && !calibrate_locked(it, error)) return false;
  while (it->shard_count < it->settings.shards) {
    shard *started = shard_start(&it->work, it->shard_count, error);
    if (started == NULL) return false;
    it->shards[it->shard_count++] = started;
  }
  if (!front_start(it->front, error)) return false;
  it->phase = PHASE_RUNNING;
  return true;
}

bool dataplane_start(dataplane *it, char error[KERNEL_ERROR_MAX]) {
  return enter(it, error) && leave(it, start_locked(it, error));
}

bool dataplane_drain(dataplane *it, char error[KERNEL_ERROR_MAX]) {
  if (!enter(it, error)) return false;
  front_drain(it->front);
  return leave(it, true);
}

bool dataplane_wait_drained(dataplane *it, double timeout_seconds) {
  pthread_mutex_lock(&it->lock);
  bool running = it->phase == PHASE_RUNNING;
  pthread_mutex_unlock(&it->lock);
  if (!running) return true;
  double bounded = timeout_seconds < 0 ? 0 : timeout_seconds > 1e6 ? 1e6 : timeout_seconds;
  return front_wait_drained(it->front, (uint64_t)(bounded * 1e9));
}

void dataplane_stop(dataplane *it) {
  pthread_mutex_lock(&it->lock);
  if (it->phase == PHASE_RUNNING) front_stop(it->front);
  if (it->shard_count > 0) work_queue_stop(&it->work);
  while (it->shard_count > 0) shard_join(it->shards[--it->shard_count]);
  it->phase = PHASE_STOPPED;
  pthread_mutex_unlock(&it->lock);
}

void dataplane_free(dataplane *it) {
  if (it == NULL) return;
  dataplane_stop(it);
  if (it->front != NULL) front_free(it->front);
  work_queue_free(&it->work);
  refusals_free(&it->refusals);
  pthread_mutex_destroy(&it->lock);
  free(it->shards);
  free(it);
}

/* ---- numbers ---- */

void dataplane_read(dataplane *it, dataplane_numbers *numbers) {
  *numbers = (dataplane_numbers){.backends = it->backends, .draining = front_is_draining(it->front)};
  pthread_mutex_lock(&it->work.lock);
  numbers->queued = it->work.batcher.queued;
  for (unsigned i = 0; i < KERNEL_ALGORITHMS; i++) numbers->queued_by_class[i] = it->work.batcher.classes[i].queued;
  numbers->costs = it->work.costs;
  pthread_mutex_unlock(&it->work.lock);
  for (unsigned i = 0; i < it->backends; i++) numbers->backend_names[i] = it->work.backends[i]->name;
  for (unsigned i = 0; i < KERNEL_ALGORITHMS; i++) {
    numbers->crossover[i] =
        it->backends > 1 ? cost_model_crossover(&numbers->costs, i, it->backends - 1) : COST_NO_CROSSOVER;
  }
}

const counters *dataplane_counters(const dataplane *it) {
  return &it->counters;
}
refusal_log *dataplane_refusals(dataplane *it) {
  return &it->refusals;
}

bool dataplane_harden_process(void) {
  struct rlimit none = {0, 0};
  return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && setrlimit(RLIMIT_CORE, &none) == 0;
}

const char *batch_reason_name(batch_reason reason) {
  switch (reason) {
    case BATCH_FULL: return "full";
    case BATCH_IDLE_SHARD: return "idle_shard";
    case BATCH_MAX_WAIT: return "max_wait";
    default: return "unknown";
  }
}
