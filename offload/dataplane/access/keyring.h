/* The set of identities and keys in force: immutable once built, and replaced as a whole. Reference-counted: every
 * accepted operation holds the keyring it was accepted with, so a superseded keyring lives until the last of its
 * operations is answered. References belong to one thread (the front); only building happens elsewhere, before the
 * keyring is shared.
 */
#ifndef OFFLOAD_KEYRING_H
#define OFFLOAD_KEYRING_H

#include "kernels/key.h"
#include "offload/dataplane/access/authorize.h"
#include "offload/dataplane/access/usage.h"

/* What watchers of an identity receive: a gRPC frame (header of 5 bytes, serialized Identity). The keyring and the
 * calls of the front thread share it. */
typedef struct identity_message {
  size_t references;
  size_t size;
  uint8_t frame[];
} identity_message;

typedef struct identity {
  char *name;
  size_t name_size;
  selector *selectors;
  size_t selector_count;
  identity_message *message;
  uint32_t number; /* the same for the same name in every keyring; 0 when none was assigned */
} identity;

/* One key of one identity. The same key may belong to several. */
typedef struct key_grant {
  kernel_key *key;
  uint32_t identity; /* index */
  key_usage usage;
  bool decrypt;
  int32_t next; /* the next grant of the same key; -1 ends the chain */
} key_grant;

typedef struct keyring {
  size_t references;
  uint64_t generation; /* assigned when it is put in force; increases with each keyring */
  identity *identities;
  key_grant *grants;
  uint32_t identity_count, identity_room, grant_count, grant_room;
  uint32_t *by_name; /* identity indices sorted by name */
  int32_t *by_key;   /* open hash table of first grants, -1 is free; size is a power of two */
  uint32_t key_mask;
} keyring;

/* To build a keyring: call keyring_new, add each identity followed by its selectors and keys, then seal. All return
 * false (or NULL) when memory ran out; sealing also fails when two identities have the same name, and then sets
 * `duplicate` to that name. */
keyring *keyring_new(void);
bool keyring_add_identity(keyring *ring, const char *name, size_t name_size, const uint8_t *message, size_t size);
/* Adds a selector to the last identity added. Strings are copied. */
bool keyring_add_selector(keyring *ring, const selector *selector);
void keyring_number_identity(keyring *ring, uint32_t number);
bool keyring_add_key(keyring *ring, const kernel_key *key, key_usage usage, bool decrypt);
bool keyring_seal(keyring *ring, const char **duplicate);

keyring *keyring_retain(keyring *ring);
void keyring_release(keyring *ring); /* NULL is allowed */

/* The first grant of a key, or NULL; `key_id` has 32 bytes. */
const key_grant *keyring_find_key(const keyring *ring, const uint8_t *key_id);
static inline const key_grant *keyring_next_grant(const keyring *ring, const key_grant *grant) {
  return grant->next < 0 ? NULL : &ring->grants[grant->next];
}

/* Index of an identity, or -1. */
int32_t keyring_find_identity(const keyring *ring, const uint8_t *name, size_t size);

identity_message *identity_message_retain(identity_message *message);
void identity_message_release(identity_message *message);
/* Whether both have the same bytes; either may be NULL. */
bool identity_message_same(const identity_message *a, const identity_message *b);

#endif
