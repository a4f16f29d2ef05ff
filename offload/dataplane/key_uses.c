#include "key_uses.h"

#include <string.h>

/* Key ids are hashes already; pids and schemes are spread by multiplication. A caller cannot choose its pid or our keys
 * well enough to make chains, and a chain is at most the table. */
static uint32_t start_of(const key_use *wanted) {
  uint64_t mixed;
  memcpy(&mixed, wanted->key_id, sizeof mixed);
  mixed ^= ((uint64_t)(uint32_t)wanted->pid << 32) ^ ((uint64_t)wanted->scheme << 8) ^ wanted->status;
  return (uint32_t)((mixed * 0x9e3779b97f4a7c15u) >> 40) % KEY_USES_SLOTS;
}

static bool same(const key_use *a, const key_use *b) {
  return a->pid == b->pid && a->uid == b->uid && a->gid == b->gid && a->scheme == b->scheme && a->status == b->status &&
         a->decrypt == b->decrypt && memcmp(a->key_id, b->key_id, KEY_USE_KEY_ID) == 0 &&
         strcmp(a->listener, b->listener) == 0;
}

void key_uses_add(key_uses *self, const caller *caller, const uint8_t *key_id, uint16_t scheme, bool decrypt,
                  uint8_t status) {
  key_use wanted = {.count = 1,
                    .pid = caller->pid,
                    .uid = caller->uid,
                    .gid = caller->gid,
                    .scheme = decrypt ? 0 : scheme,
                    .status = status,
                    .decrypt = decrypt};
  memcpy(wanted.key_id, key_id, KEY_USE_KEY_ID);
  strncpy(wanted.listener, caller->listener, sizeof wanted.listener - 1);
  if (caller->executable != NULL) strncpy(wanted.executable, caller->executable, sizeof wanted.executable - 1);
  for (uint32_t at = start_of(&wanted);; at = (at + 1) % KEY_USES_SLOTS) { /* half of the slots are always empty */
    key_use *slot = &self->slots[at];
    if (slot->count == 0) {
      if (self->used == KEY_USES_MAX) {
        self->unlisted++;
      } else {
        *slot = wanted;
        self->used++;
      }
      return;
    }
    if (same(slot, &wanted)) {
      slot->count++;
      return;
    }
  }
}

unsigned key_uses_take(key_uses *self, key_use taken[], uint64_t *unlisted) {
  unsigned count = 0;
  for (uint32_t at = 0; at < KEY_USES_SLOTS && count < self->used; at++) {
    if (self->slots[at].count > 0) taken[count++] = self->slots[at];
  }
  *unlisted = self->unlisted;
  memset(self, 0, sizeof *self);
  return count;
}
