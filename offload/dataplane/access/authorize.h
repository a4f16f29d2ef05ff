/* Whether a caller may use an identity: any of its selectors matches; every field a selector gives must match. Pure. */
#ifndef OFFLOAD_AUTHORIZE_H
#define OFFLOAD_AUTHORIZE_H

#include "offload/dataplane/access/caller.h"

typedef struct selector {
  bool has_uid, has_gid;
  uid_t uid;
  gid_t gid;        /* primary or supplementary */
  char *executable; /* the rest: NULL is not given */
  char *cgroup;     /* prefix of the path, on a component boundary; of any hierarchy */
  char *socket;     /* listener's name */
} selector;

/* A selector with no field matches nobody. */
bool authorize_matches(const selector *selector, const caller *caller);
/* Whether it could match somebody of this user who came through this listener, whatever else it asks for. */
bool authorize_could_match(const selector *selector, uid_t uid, const char *listener);
bool authorize_any(const selector selectors[], size_t count, const caller *caller);

#endif
