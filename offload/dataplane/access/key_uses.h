/* Who used which key for what, for the audit log and the counts per identity. The front counts in a table of its own,
 * so that the hot path takes no lock, allocates nothing and does no I/O; a command to the front copies the table out
 * from time to time.
 */
#ifndef OFFLOAD_KEY_USES_H
#define OFFLOAD_KEY_USES_H

#include <stdbool.h>
#include <stdint.h>

#include "offload/dataplane/access/caller.h"

enum {
  KEY_USES_SLOTS = 2048,
  KEY_USES_MAX = KEY_USES_SLOTS / 2,
  KEY_USE_KEY_ID = 32,
  KEY_USE_LISTENER_MAX = 64,
  KEY_USE_EXECUTABLE_MAX = 128,
};

/* All operations of one caller with one key that ended in the same way. */
typedef struct key_use {
  uint64_t count; /* 0: an empty slot */
  pid_t pid;
  uid_t uid;
  gid_t gid;
  uint16_t scheme; /* TLS SignatureScheme; 0 for a decryption */
  uint8_t status;  /* rpc_status */
  uint8_t backend; /* index in the cost model */
  bool decrypt;
  uint32_t identity; /* its number in the keyring */
  uint8_t key_id[KEY_USE_KEY_ID];
  char listener[KEY_USE_LISTENER_MAX];     /* cut off when longer */
  char executable[KEY_USE_EXECUTABLE_MAX]; /* truncated; empty when it could not be read */
} key_use;

typedef struct key_uses {
  uint32_t used;
  uint64_t unlisted; /* operations that found the table full */
  key_use slots[KEY_USES_SLOTS];
} key_uses;

/* What was done. `same` compares these fields and the caller to tell entries apart. */
typedef struct key_use_kind {
  const uint8_t *key_id;
  uint32_t identity;
  uint16_t scheme;
  uint8_t status, backend;
  bool decrypt;
} key_use_kind;

void key_uses_add(key_uses *self, const caller *caller, const key_use_kind *kind);

/* Copies the entries out and empties the table; returns how many. `taken` has room for KEY_USES_MAX. */
unsigned key_uses_take(key_uses *self, key_use taken[], uint64_t *unlisted);

#endif
