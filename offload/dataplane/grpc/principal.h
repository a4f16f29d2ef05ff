/* Who is at the other end, for shares and bounds.
 *
 * A user is the uid behind connections of the main socket, or a dedicated socket, whoever connects to it. Callers
 * without an identity (strangers) are kept apart from callers of the same user that have one, so that they cannot use
 * up the share of the latter; and all strangers together have the memory, the connections and the turns of a single
 * user.
 */
#ifndef OFFLOAD_GRPC_PRINCIPAL_H
#define OFFLOAD_GRPC_PRINCIPAL_H

#include "offload/dataplane/grpc/loop.h"

struct connection;

enum { STRANGER_WATCHES = 4096 }; /* identities that a user without an identity may watch */

typedef struct principal {
  list_node link;    /* in front->principals */
  list_node turn;    /* in front->turns or front->stranger_turns while a connection of it has something to process */
  list_node ready;   /* those connections, the next to be served first */
  list_node writing; /* in front->writers or front->stranger_writers while a connection of it may have to be written */
  list_node dirty;   /* those connections, the next to be written to first */
  front *front;
  batch_group batch;
  size_t memory;        /* bytes held for it */
  uint32_t connections; /* including those that have ended and wait for a shard */
  uid_t uid;
  char *socket;     /* the name of a dedicated socket; NULL for the main one */
  uint32_t watches; /* identities that calls of WatchIdentities watch */
  bool is_stranger;
} principal;

bool principal_is_dedicated(const char *listener);
principal *principal_find(front *front, uid_t uid, const char *listener, bool is_stranger); /* NULL if not found */
/* Whether the caller has some identity. */
bool principal_is_known(const front *front, const caller *caller);
/* Whether a process of this user may have some identity: false only when details of the process could not change
 * that. */
bool principal_may_be_known(const front *front, uid_t uid, const char *listener);
bool principal_join(struct connection *it, bool is_stranger); /* false when memory ran out */
void principal_leave(struct connection *it);
void principal_hold(principal *it);
void principal_release(principal *it);
/* After the keyring was replaced, a caller may have become a stranger, or have ceased to be one. A connection is
 * reviewed before it is next served; the others, which may have operations queued, are reviewed a few in each turn of
 * the loop. */
void principal_review(struct connection *it);
void principals_review_all(front *front);  /* begins a review of all connections */
void principals_review_some(front *front); /* continues it */
/* Charges bytes held for a connection to its user; false, with nothing charged, when the user would hold more than it
 * may. */
bool principal_charge(struct connection *it, size_t bytes);
void principal_owe(struct connection *it, size_t bytes); /* charges even above the bound */
void principal_repay(struct connection *it, size_t bytes);
/* Identities watched in calls of WatchIdentities: each new keyring is compared with all of them. */
bool principal_may_watch(const struct connection *it); /* whether it may watch one more */
void principal_count_watches(struct connection *it, int32_t more);

#endif
