/* How often callers without an identity may connect. Identifying a caller costs ten times what rejecting it does, and a
 * user may connect and disconnect in a loop: once it has done so ARRIVAL_BURST times, its connections are closed before
 * anything is looked up, and without a reason, except for ARRIVAL_RATE a second. A caller that merely starts before its
 * identity exists needs few. Users that a selector may match are always looked up, as one process of theirs must not
 * lock the others out; ACCEPT_NS bounds what that costs (listener.c).
 *
 * The table has no chains: two users of one slot evict each other, which admits both more often.
 */
#include "offload/dataplane/grpc/arrivals.h"

#include "offload/dataplane/grpc/listener.h"
#include "offload/dataplane/grpc/principal.h"

enum { ARRIVAL_BURST = 512, ARRIVAL_RATE = 100 };

/* Never 0, which marks an unused slot. */
static uint64_t user_of(const listener *from, uid_t uid) {
  return principal_is_dedicated(from->name) ? (uint64_t)(uintptr_t)from : (uint64_t)uid << 1 | 1;
}

static arrival *slot_of(front *front, uint64_t user) {
  return &front->arrivals[user * front->id_multiplier >> 32 & (ARRIVAL_SLOTS - 1)];
}

bool arrivals_allow(front *front, const listener *from, uid_t uid) {
  uint64_t user = user_of(from, uid);
  const arrival *it = slot_of(front, user);
  return it->user != user || it->count < ARRIVAL_BURST || front->now - it->counted_at >= 1000000000u / ARRIVAL_RATE;
}

void arrivals_note_stranger(front *front, const listener *from, uid_t uid) {
  uint64_t user = user_of(from, uid);
  arrival *it = slot_of(front, user);
  if (it->user != user) *it = (arrival){.user = user, .counted_at = front->now};
  uint64_t forgiven = (front->now - it->counted_at) * ARRIVAL_RATE / 1000000000u;
  if (forgiven > 0) {
    it->count = it->count > forgiven ? it->count - (uint32_t)forgiven : 0;
    it->counted_at = front->now;
  }
  it->count++;
}
