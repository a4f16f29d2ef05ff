/* Whether a caller may use an identity: at least one selector of the identity has to match, with every field that the
 * selector gives. No I/O, no state. */
#ifndef OFFLOAD_AUTHORIZE_H
#define OFFLOAD_AUTHORIZE_H

#include "offload/dataplane/access/caller.h"

typedef struct selector {
  bool has_uid, has_gid;
  uid_t uid;
  gid_t gid;        /* primary or supplementary */
  char *executable; /* here and below: NULL when not given */
  char *cgroup;     /* prefix of the path in any hierarchy, on a component boundary */
  char *socket;     /* listener's name */
} selector;

/* A selector without any field matches no caller. */
bool authorize_matches(const selector *selector, const caller *caller);
/* Whether the selector could match a process of this user on this listener; its other fields are not looked at. */
bool authorize_could_match(const selector *selector, uid_t uid, const char *listener);
bool authorize_any(const selector selectors[], size_t count, const caller *caller);

#endif
