#include "offload/dataplane/access/key_uses.h"

#include <string.h>

/* Key ids are hashes already; multiplication spreads PIDs and the other fields. A caller cannot choose its PID or our
 * keys well enough to provoke long probe sequences, and the longest sequence is the table itself. */
static uint32_t start_of(const caller *caller, const key_use_kind *kind) {
  uint64_t mixed;
  memcpy(&mixed, kind->key_id, sizeof mixed);
  mixed ^= ((uint64_t)(uint32_t)caller->pid << 32) ^ ((uint64_t)kind->scheme << 16) ^ ((uint64_t)kind->backend << 8) ^
           kind->status ^ ((uint64_t)kind->identity << 40);
  return (uint32_t)((mixed * 0x9e3779b97f4a7c15u) >> 40) % KEY_USES_SLOTS;
}

static uint16_t scheme_of(const key_use_kind *kind) {
  return kind->decrypt ? 0 : kind->scheme;
}

static bool same(const key_use *slot, const caller *caller, const key_use_kind *kind) {
  return slot->pid == caller->pid && slot->uid == caller->uid && slot->gid == caller->gid &&
         slot->scheme == scheme_of(kind) && slot->status == kind->status && slot->backend == kind->backend &&
         slot->decrypt == kind->decrypt && slot->identity == kind->identity &&
         memcmp(slot->key_id, kind->key_id, KEY_USE_KEY_ID) == 0 &&
         strncmp(slot->listener, caller->listener, KEY_USE_LISTENER_MAX - 1) == 0;
}

static void fill(key_use *slot, const caller *caller, const key_use_kind *kind) {
  *slot = (key_use){.count = 1,
                    .pid = caller->pid,
                    .uid = caller->uid,
                    .gid = caller->gid,
                    .scheme = scheme_of(kind),
                    .status = kind->status,
                    .backend = kind->backend,
                    .decrypt = kind->decrypt,
                    .identity = kind->identity};
  memcpy(slot->key_id, kind->key_id, KEY_USE_KEY_ID);
  strncpy(slot->listener, caller->listener, sizeof slot->listener - 1);
  if (caller->executable != NULL) strncpy(slot->executable, caller->executable, sizeof slot->executable - 1);
}

void key_uses_add(key_uses *self, const caller *caller, const key_use_kind *kind) {
  for (uint32_t at = start_of(caller, kind);; at = (at + 1) % KEY_USES_SLOTS) { /* half of the slots are always empty */
    key_use *slot = &self->slots[at];
    if (slot->count == 0) {
      if (self->used == KEY_USES_MAX) {
        self->unlisted++;
      } else {
        fill(slot, caller, kind);
        self->used++;
      }
      return;
    }
    if (same(slot, caller, kind)) {
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
