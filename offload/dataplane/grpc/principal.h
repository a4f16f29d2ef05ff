/* Who is at the other end, for shares and bounds.
 *
 * A user: the uid behind connections of the main socket, or a dedicated socket, whoever comes through it. Callers that
 * no identity is for (strangers) are told apart from callers of the same user that have one, so they cannot spend what
 * is theirs; and all strangers together have the memory, the connections and the turns of a single user.
 */
#ifndef OFFLOAD_GRPC_PRINCIPAL_H
#define OFFLOAD_GRPC_PRINCIPAL_H

#include "offload/dataplane/grpc/loop.h"

struct connection;

enum { STRANGER_WATCHES = 4096 }; /* identities that a user watches while none is for it */

typedef struct principal {
  list_node link; /* in front->principals */
  list_node turn; /* in front->turns or front->stranger_turns while a connection of it has something to be dealt with */
  list_node ready;   /* those connections, the next to be served first */
  list_node writing; /* in front->writers or front->stranger_writers while a connection of it may have to be written */
  list_node dirty;   /* those connections, the next to be written to first */
  front *front;
  batch_group batch;
  size_t memory;        /* bytes held for it */
  uint32_t connections; /* those that have ended and wait for a shard included */
  uid_t uid;
  char *socket;     /* the name of a dedicated one; NULL: the main one */
  uint32_t watches; /* identities that calls of WatchIdentities watch */
  bool is_stranger;
} principal;

bool principal_is_dedicated(const char *listener);
principal *principal_find(front *front, uid_t uid, const char *listener, bool is_stranger); /* NULL: there is none */
/* Whether some identity is for the caller. */
bool principal_is_known(const front *front, const caller *caller);
/* Whether some identity may be for a process of this user: false only where no look at the process could tell more. */
bool principal_may_be_known(const front *front, uid_t uid, const char *listener);
bool principal_join(struct connection *it, bool is_stranger); /* false when memory ran out */
void principal_leave(struct connection *it);
void principal_hold(principal *it);
void principal_release(principal *it);
/* After the keyring was replaced, a caller may have become a stranger, or be none any more. A connection is reviewed
 * before it is next served; the others, which may have operations queued, a few in each turn of the loop. */
void principal_review(struct connection *it);
void principals_review_all(front *front);  /* from now on */
void principals_review_some(front *front); /* what is left of it */
/* Bytes held for a connection, within what its user may hold: false, and nothing charged, above that. */
bool principal_charge(struct connection *it, size_t bytes);
void principal_owe(struct connection *it, size_t bytes); /* in any case */
void principal_repay(struct connection *it, size_t bytes);
/* Identities watched in calls of WatchIdentities: each new keyring is compared with all of them. */
bool principal_may_watch(const struct connection *it); /* one more */
void principal_count_watches(struct connection *it, int32_t more);

#endif
