#include "offload/dataplane/access/authorize.h"

#include <string.h>

static bool in_group(gid_t gid, const caller *caller) {
  if (caller->gid == gid) return true;
  for (size_t i = 0; i < caller->group_count; i++) {
    if (caller->groups[i] == gid) return true;
  }
  return false;
}

/* Whether `path` (of `size` bytes) is `prefix` or lies below it. */
static bool is_below(const char *path, size_t size, const char *prefix) {
  size_t length = strlen(prefix);
  while (length > 1 && prefix[length - 1] == '/') length--;
  if (size < length || memcmp(path, prefix, length) != 0) return false;
  return size == length || path[length] == '/' || prefix[length - 1] == '/';
}

/* Lines are "hierarchy:controllers:path". */
static bool in_cgroup(const char *lines, const char *prefix) {
  for (const char *line = lines; *line != 0;) {
    size_t size = strcspn(line, "\n");
    const char *first = memchr(line, ':', size);
    const char *second = first == NULL ? NULL : memchr(first + 1, ':', (size_t)(line + size - first - 1));
    if (second != NULL && is_below(second + 1, (size_t)(line + size - second - 1), prefix)) return true;
    line += size;
    if (*line == '\n') line++;
  }
  return false;
}

static bool same_text(const char *text, const char *expected) {
  return text != NULL && strcmp(text, expected) == 0;
}

bool authorize_could_match(const selector *selector, uid_t uid, const char *listener) {
  bool given = selector->has_uid || selector->has_gid || selector->executable || selector->cgroup || selector->socket;
  if (!given) return false;
  if (selector->has_uid && selector->uid != uid) return false;
  return selector->socket == NULL || same_text(listener, selector->socket);
}

bool authorize_matches(const selector *selector, const caller *caller) {
  if (!authorize_could_match(selector, caller->uid, caller->listener)) return false;
  if (selector->has_gid && !in_group(selector->gid, caller)) return false;
  if (selector->executable && !same_text(caller->executable, selector->executable)) return false;
  if (selector->cgroup && (caller->cgroups == NULL || !in_cgroup(caller->cgroups, selector->cgroup))) return false;
  return true;
}

bool authorize_any(const selector selectors[], size_t count, const caller *caller) {
  for (size_t i = 0; i < count; i++) {
    if (authorize_matches(&selectors[i], caller)) return true;
  }
  return false;
}
