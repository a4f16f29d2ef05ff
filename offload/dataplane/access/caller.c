#include "offload/dataplane/access/caller.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

enum { PROC_PATH_MAX = 64, CGROUP_FILE_MAX = 16 * 1024 };

static int open_process(int socket, pid_t pid) {
  int descriptor;
  socklen_t size = sizeof descriptor;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &descriptor, &size) == 0) return descriptor;
  if (errno != ENOPROTOOPT) return -1;
  return (int)syscall(SYS_pidfd_open, pid, 0);
}

static bool is_running(int process) {
  struct pollfd ended = {.fd = process, .events = POLLIN};
  return poll(&ended, 1, 0) == 0;
}

static char *read_executable(pid_t pid) {
  char path[PROC_PATH_MAX], target[PATH_MAX];
  snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
  ssize_t size = readlink(path, target, sizeof target);
  if (size <= 0 || (size_t)size >= sizeof target) return NULL;
  return strndup(target, (size_t)size);
}

static char *read_cgroups(pid_t pid) {
  char path[PROC_PATH_MAX];
  snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return NULL;
  char *text = malloc(CGROUP_FILE_MAX);
  size_t used = 0;
  ssize_t got = text == NULL ? -1 : 1;
  while (got > 0 && used < CGROUP_FILE_MAX - 1) {
    got = read(file, text + used, CGROUP_FILE_MAX - 1 - used);
    if (got > 0) used += (size_t)got;
  }
  close(file);
  if (got != 0) { /* an error, or longer than any real path */
    free(text);
    return NULL;
  }
  text[used] = 0;
  char *fitted = realloc(text, used + 1);
  return fitted != NULL ? fitted : text;
}

static void read_groups(int socket, caller *caller) {
  socklen_t size = 0;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0 || errno != ERANGE || size == 0) return;
  gid_t *groups = malloc(size);
  if (groups == NULL) return;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &size) != 0) {
    free(groups);
    return;
  }
  caller->groups = groups;
  caller->group_count = size / sizeof *groups;
}

static void read_process(int socket, caller *caller) {
  int process = open_process(socket, caller->pid);
  if (process < 0) return; /* it has ended already: no selector that needs /proc will match */
  caller->executable = read_executable(caller->pid);
  caller->cgroups = read_cgroups(caller->pid);
  if (!is_running(process)) {
    free(caller->executable);
    free(caller->cgroups);
    caller->executable = caller->cgroups = NULL;
  }
  close(process);
}

bool caller_read(int socket, const char *listener, caller *caller) {
  *caller = (struct caller){0};
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return false;
  caller->pid = credentials.pid;
  caller->uid = credentials.uid;
  caller->gid = credentials.gid;
  caller->listener = strdup(listener);
  if (caller->listener == NULL) return false;
  read_groups(socket, caller);
  /* 0: the peer's PID namespace does not map into ours. */
  if (caller->pid > 0) read_process(socket, caller);
  return true;
}

void caller_free(caller *caller) {
  free(caller->groups);
  free(caller->executable);
  free(caller->cgroups);
  free(caller->listener);
  *caller = (struct caller){0};
}
