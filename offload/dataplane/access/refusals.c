#include "offload/dataplane/access/refusals.h"

#include <string.h>
#include <sys/random.h>

static const char *const names[REFUSAL_REASONS] = {
    [REFUSED_UNKNOWN_KEY] = "unknown_key",
    [REFUSED_CALLER] = "caller_not_allowed",
    [REFUSED_UNKNOWN_IDENTITY] = "unknown_identity",
    [REFUSED_USAGE] = "usage",
    [REFUSED_BAD_OPERATION] = "bad_operation",
    [REFUSED_QUEUE_FULL] = "queue_full",
    [REFUSED_CONNECTION_QUEUE_FULL] = "connection_queue_full",
    [REFUSED_DEADLINE] = "deadline",
    [REFUSED_DRAINING] = "draining",
    [REFUSED_MALFORMED] = "malformed",
    [REFUSED_TOO_LARGE] = "too_large",
    [REFUSED_COMPRESSED] = "compressed",
    [REFUSED_UNKNOWN_METHOD] = "unknown_method",
    [REFUSED_TOO_MANY_CONNECTIONS] = "too_many_connections",
    [REFUSED_USER_CONNECTIONS] = "too_many_connections_of_user",
    [REFUSED_STRANGER_CONNECTIONS] = "too_many_connections_without_identity",
    [REFUSED_USER_QUEUE_FULL] = "user_queue_full",
    [REFUSED_USER_MEMORY] = "user_memory",
    [REFUSED_TOO_MANY_WATCHES] = "too_many_watches",
    [REFUSED_FLOOD] = "flood",
    [REFUSED_STALLED] = "does_not_read",
    [REFUSED_FAULT] = "fault",
};

const char *refusal_reason_name(refusal_reason reason) {
  return names[reason];
}

void refusals_init(refusal_log *log) {
  memset(log, 0, sizeof *log);
  pthread_mutex_init(&log->lock, NULL);
  /* Without the seed (very early in a boot) the hashes can be guessed, so a flood costs more; nothing else depends on
   * it. */
  if (getrandom(&log->seed, sizeof log->seed, GRND_NONBLOCK) != sizeof log->seed) log->seed = 0;
}

void refusals_free(refusal_log *log) {
  pthread_mutex_destroy(&log->lock);
}

static bool same(const refusal *a, const refusal *b) {
  return a->reason == b->reason && a->pid == b->pid && a->uid == b->uid && a->gid == b->gid &&
         a->key_id_size == b->key_id_size && memcmp(a->key_id, b->key_id, sizeof a->key_id) == 0 &&
         a->operation == b->operation && a->decrypt == b->decrypt && a->scheme == b->scheme &&
         strcmp(a->listener, b->listener) == 0 && strcmp(a->identity, b->identity) == 0;
}

static uint64_t mix(uint64_t hash, const void *data, size_t size) {
  const uint8_t *at = data;
  while (size > 0) {
    uint64_t word = 0;
    size_t part = size < sizeof word ? size : sizeof word;
    memcpy(&word, at, part);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
    at += part;
    size -= part;
  }
  return hash;
}

/* Hashes the fields that differ most between entries; `same` compares all fields. */
static uint64_t hash_of(const refusal_log *log, const refusal *entry) {
  uint64_t hash = mix(log->seed, &entry->reason, sizeof entry->reason);
  hash = mix(hash, &entry->pid, sizeof entry->pid);
  hash = mix(hash, &entry->uid, sizeof entry->uid);
  hash = mix(hash, &entry->scheme, sizeof entry->scheme);
  hash = mix(hash, entry->key_id, entry->key_id_size);
  return mix(hash, entry->identity, strlen(entry->identity));
}

static void fold(refusal_log *log, const refusal *entry, uint64_t hash) {
  /* Searches from the newest, since floods repeat themselves. */
  for (unsigned i = log->used; i-- > 0;) {
    if (log->hashes[i] == hash && same(&log->ring[i], entry)) {
      log->ring[i].count++;
      return;
    }
  }
  if (log->used < REFUSAL_RING) {
    log->hashes[log->used] = hash;
    log->ring[log->used++] = *entry;
  } else {
    log->unlisted++;
  }
}

static void describe(refusal *entry, const refused_request *request) {
  if (request->key_id != NULL) {
    memcpy(entry->key_id, request->key_id, REFUSAL_KEY_ID);
    entry->key_id_size = REFUSAL_KEY_ID;
  }
  entry->operation = request->operation;
  entry->decrypt = request->decrypt;
  entry->scheme = request->operation && !request->decrypt ? request->scheme : 0;
  if (request->identity != NULL) {
    size_t size = request->identity_size;
    if (size > sizeof entry->identity - 1) size = sizeof entry->identity - 1;
    memcpy(entry->identity, request->identity, size);
  }
}

void refusals_add(refusal_log *log, refusal_reason reason, const caller *caller, const refused_request *request) {
  atomic_fetch_add_explicit(&log->counts[reason], 1, memory_order_relaxed);
  refusal entry = {.reason = reason, .pid = caller->pid, .uid = caller->uid, .gid = caller->gid, .count = 1};
  strncpy(entry.listener, caller->listener, sizeof entry.listener - 1);
  if (request != NULL) describe(&entry, request);
  uint64_t hash = hash_of(log, &entry);
  pthread_mutex_lock(&log->lock);
  fold(log, &entry, hash);
  pthread_mutex_unlock(&log->lock);
}

unsigned refusals_take(refusal_log *log, refusal taken[], uint64_t *unlisted) {
  pthread_mutex_lock(&log->lock);
  unsigned count = log->used;
  memcpy(taken, log->ring, count * sizeof *taken);
  *unlisted = log->unlisted;
  log->used = 0;
  log->unlisted = 0;
  pthread_mutex_unlock(&log->lock);
  return count;
}

uint64_t refusals_count(const refusal_log *log, refusal_reason reason) {
  return atomic_load_explicit((_Atomic uint64_t *)&log->counts[reason], memory_order_relaxed);
}
