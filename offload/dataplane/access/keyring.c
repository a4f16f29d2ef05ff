#include "offload/dataplane/access/keyring.h"

#include <stdlib.h>
#include <string.h>

enum { FRAME_HEADER = 5 };

/* ---- building ---- */

keyring *keyring_new(void) {
  keyring *ring = calloc(1, sizeof *ring);
  if (ring != NULL) ring->references = 1;
  return ring;
}

/* Doubles `*room` when all of it is used. */
static bool make_room(void **items, uint32_t count, uint32_t *room, size_t size) {
  if (count < *room) return true;
  uint32_t wanted = *room == 0 ? 8 : *room * 2;
  void *grown = realloc(*items, wanted * size);
  if (grown == NULL) return false;
  *items = grown;
  *room = wanted;
  return true;
}

static identity_message *new_message(const uint8_t *message, size_t size) {
  identity_message *made = malloc(sizeof *made + FRAME_HEADER + size);
  if (made == NULL) return NULL;
  made->references = 1;
  made->size = FRAME_HEADER + size;
  made->frame[0] = 0; /* not compressed */
  for (unsigned i = 0; i < 4; i++) made->frame[1 + i] = (uint8_t)(size >> (24 - 8 * i));
  if (size > 0) memcpy(made->frame + FRAME_HEADER, message, size);
  return made;
}

bool keyring_add_identity(keyring *ring, const char *name, size_t name_size, const uint8_t *message, size_t size) {
  if (!make_room((void **)&ring->identities, ring->identity_count, &ring->identity_room, sizeof(identity)))
    return false;
  identity made = {.name = strndup(name, name_size), .name_size = name_size, .message = new_message(message, size)};
  if (made.name == NULL || made.message == NULL) {
    free(made.name);
    free(made.message);
    return false;
  }
  ring->identities[ring->identity_count++] = made;
  return true;
}

void keyring_number_identity(keyring *ring, uint32_t number) {
  ring->identities[ring->identity_count - 1].number = number;
}

static bool copy_text(char **to, const char *from) {
  if (from == NULL) return true;
  *to = strdup(from);
  return *to != NULL;
}

bool keyring_add_selector(keyring *ring, const selector *given) {
  identity *owner = &ring->identities[ring->identity_count - 1];
  selector *grown = realloc(owner->selectors, (owner->selector_count + 1) * sizeof *grown);
  if (grown == NULL) return false;
  owner->selectors = grown;
  selector *copy = &grown[owner->selector_count++];
  *copy = *given;
  copy->executable = copy->cgroup = copy->socket = NULL;
  return copy_text(&copy->executable, given->executable) && copy_text(&copy->cgroup, given->cgroup) &&
         copy_text(&copy->socket, given->socket);
}

bool keyring_add_key(keyring *ring, const kernel_key *key, key_usage usage, bool decrypt) {
  if (!make_room((void **)&ring->grants, ring->grant_count, &ring->grant_room, sizeof(key_grant))) return false;
  ring->grants[ring->grant_count++] = (key_grant){.key = kernel_key_retain(key),
                                                  .identity = ring->identity_count - 1,
                                                  .usage = usage,
                                                  .decrypt = decrypt,
                                                  .next = -1};
  return true;
}

/* Key ids are SHA-256 values of our own keys: any 4 bytes of them are a hash. */
static uint32_t hash_of(const uint8_t *key_id) {
  uint32_t hash;
  memcpy(&hash, key_id, sizeof hash);
  return hash;
}

static int32_t *find_slot(const keyring *ring, const uint8_t *key_id) {
  for (uint32_t at = hash_of(key_id);; at++) {
    int32_t *slot = &ring->by_key[at & ring->key_mask];
    if (*slot < 0 || memcmp(kernel_key_id(ring->grants[*slot].key), key_id, KERNEL_KEY_ID_SIZE) == 0) return slot;
  }
}

static bool index_keys(keyring *ring) {
  uint32_t size = 8;
  while (size < 2 * ring->grant_count) size *= 2; /* at most half full: a search ends at a free slot */
  ring->by_key = malloc(size * sizeof *ring->by_key);
  if (ring->by_key == NULL) return false;
  ring->key_mask = size - 1;
  for (uint32_t i = 0; i < size; i++) ring->by_key[i] = -1;
  for (uint32_t i = ring->grant_count; i-- > 0;) { /* backwards: chains keep the order of insertion */
    int32_t *slot = find_slot(ring, kernel_key_id(ring->grants[i].key));
    ring->grants[i].next = *slot;
    *slot = (int32_t)i;
  }
  return true;
}

static int compare_names(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size) {
  int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
  return order != 0 ? order : (a_size > b_size) - (a_size < b_size);
}

static int compare_identities(const void *a, const void *b, void *ring) {
  const identity *identities = ((const keyring *)ring)->identities;
  const identity *left = &identities[*(const uint32_t *)a], *right = &identities[*(const uint32_t *)b];
  return compare_names((const uint8_t *)left->name, left->name_size, (const uint8_t *)right->name, right->name_size);
}

bool keyring_seal(keyring *ring, const char **duplicate) {
  *duplicate = NULL;
  ring->by_name = malloc((ring->identity_count + 1) * sizeof *ring->by_name);
  if (ring->by_name == NULL || !index_keys(ring)) return false;
  for (uint32_t i = 0; i < ring->identity_count; i++) ring->by_name[i] = i;
  qsort_r(ring->by_name, ring->identity_count, sizeof *ring->by_name, compare_identities, ring);
  for (uint32_t i = 1; i < ring->identity_count; i++) {
    if (compare_identities(&ring->by_name[i - 1], &ring->by_name[i], ring) == 0) {
      *duplicate = ring->identities[ring->by_name[i]].name;
      return false;
    }
  }
  return true;
}

/* ---- use ---- */

keyring *keyring_retain(keyring *ring) {
  ring->references++;
  return ring;
}

void keyring_release(keyring *ring) {
  if (ring == NULL || --ring->references > 0) return;
  for (uint32_t i = 0; i < ring->grant_count; i++) kernel_key_release(ring->grants[i].key);
  for (uint32_t i = 0; i < ring->identity_count; i++) {
    identity *it = &ring->identities[i];
    for (size_t j = 0; j < it->selector_count; j++) {
      free(it->selectors[j].executable);
      free(it->selectors[j].cgroup);
      free(it->selectors[j].socket);
    }
    free(it->selectors);
    free(it->name);
    identity_message_release(it->message);
  }
  free(ring->identities);
  free(ring->grants);
  free(ring->by_name);
  free(ring->by_key);
  free(ring);
}

const key_grant *keyring_find_key(const keyring *ring, const uint8_t *key_id) {
  int32_t slot = *find_slot(ring, key_id);
  return slot < 0 ? NULL : &ring->grants[slot];
}

int32_t keyring_find_identity(const keyring *ring, const uint8_t *name, size_t size) {
  uint32_t low = 0, high = ring->identity_count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    const identity *it = &ring->identities[ring->by_name[middle]];
    int order = compare_names(name, size, (const uint8_t *)it->name, it->name_size);
    if (order == 0) return (int32_t)ring->by_name[middle];
    if (order < 0) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return -1;
}

identity_message *identity_message_retain(identity_message *message) {
  message->references++;
  return message;
}

void identity_message_release(identity_message *message) {
  if (message != NULL && --message->references == 0) free(message);
}

bool identity_message_same(const identity_message *a, const identity_message *b) {
  return a == b || (a != NULL && b != NULL && a->size == b->size && memcmp(a->frame, b->frame, a->size) == 0);
}
