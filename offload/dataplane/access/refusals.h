/* Why callers were rejected: counters per reason for metrics, and a bounded ring with the callers for the log. Equal
 * refusals are folded into one entry, so that a misconfigured client cannot flood the log. */
#ifndef OFFLOAD_REFUSALS_H
#define OFFLOAD_REFUSALS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "offload/dataplane/access/caller.h"

typedef enum refusal_reason {
  REFUSED_UNKNOWN_KEY,
  REFUSED_CALLER,           /* no selector of an identity with that key (or of that name) matches */
  REFUSED_UNKNOWN_IDENTITY, /* WatchIdentity */
  REFUSED_USAGE,            /* the key's usage does not allow this input, scheme or decryption */
  REFUSED_BAD_OPERATION,    /* field out of range, a scheme that does not fit the key */
  REFUSED_QUEUE_FULL,
  REFUSED_CONNECTION_QUEUE_FULL,
  REFUSED_DEADLINE,
  REFUSED_DRAINING,
  REFUSED_MALFORMED, /* not a valid message or call of this service */
  REFUSED_TOO_LARGE,
  REFUSED_COMPRESSED,
  REFUSED_UNKNOWN_METHOD,
  REFUSED_TOO_MANY_CONNECTIONS,
  REFUSED_USER_CONNECTIONS,     /* too many of one user */
  REFUSED_STRANGER_CONNECTIONS, /* too many of callers that no identity is for, together */
  REFUSED_USER_QUEUE_FULL,
  REFUSED_USER_MEMORY,      /* its user holds as much memory here as it may */
  REFUSED_TOO_MANY_WATCHES, /* WatchIdentities */
  REFUSED_FLOOD,            /* more pings or settings than any client needs, or endless headers */
  REFUSED_STALLED,          /* did not read what waited for it for too long */
  REFUSED_FAULT,            /* every backend failed */
  REFUSAL_REASONS,
} refusal_reason;

enum { REFUSAL_RING = 256, REFUSAL_LISTENER_MAX = 64, REFUSAL_KEY_ID = 32, REFUSAL_IDENTITY_MAX = 128 };

/* What the caller asked for, as far as it could be read. */
typedef struct refused_request {
  const uint8_t *key_id; /* NULL, or REFUSAL_KEY_ID bytes */
  bool operation;        /* a signature of this scheme, or a decryption */
  bool decrypt;
  uint32_t scheme;         /* as requested: any number */
  const uint8_t *identity; /* requested by name; NULL, or `identity_size` arbitrary bytes */
  size_t identity_size;
} refused_request;

typedef struct refusal {
  refusal_reason reason;
  pid_t pid;
  uid_t uid;
  gid_t gid;
  char listener[REFUSAL_LISTENER_MAX]; /* cut off when longer */
  uint8_t key_id[REFUSAL_KEY_ID];
  uint8_t key_id_size; /* 0 or REFUSAL_KEY_ID */
  bool operation;
  bool decrypt;
  uint32_t scheme;                     /* 0 for a decryption, and when there was no operation */
  char identity[REFUSAL_IDENTITY_MAX]; /* truncated; empty when none was requested by name */
  uint64_t count;
} refusal;

typedef struct refusal_log {
  _Atomic uint64_t counts[REFUSAL_REASONS];
  pthread_mutex_t lock;
  uint64_t seed;
  uint64_t hashes[REFUSAL_RING]; /* one per entry: a flood of different refusals compares numbers, not names */
  refusal ring[REFUSAL_RING];    /* `used` entries; when full, new kinds of refusal are only counted */
  unsigned used;
  uint64_t unlisted; /* refusals that found the ring full */
} refusal_log;

void refusals_init(refusal_log *log);
void refusals_free(refusal_log *log);

/* `request` is NULL when the caller was refused before it made one. */
void refusals_add(refusal_log *log, refusal_reason reason, const caller *caller, const refused_request *request);

/* Copies the entries out, oldest first, and empties the ring; returns how many. `taken` has room for REFUSAL_RING. */
unsigned refusals_take(refusal_log *log, refusal taken[], uint64_t *unlisted);

uint64_t refusals_count(const refusal_log *log, refusal_reason reason);
const char *refusal_reason_name(refusal_reason reason);

#endif
