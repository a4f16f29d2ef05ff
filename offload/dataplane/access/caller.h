/* Who is at the other end of a Unix socket, as the kernel knows it when the connection is accepted. */
#ifndef OFFLOAD_CALLER_H
#define OFFLOAD_CALLER_H

#include <stdbool.h>
#include <sys/types.h>

typedef struct caller {
  pid_t pid;
  uid_t uid;
  gid_t gid;
  gid_t *groups; /* supplementary */
  size_t group_count;
  char *executable; /* NULL when it could not be read, or may be another process's */
  char *cgroups;    /* the lines of /proc/PID/cgroup; NULL in the same cases */
  char *listener;   /* the name of the listener that accepted it */
} caller;

/* Reads the credentials of the peer of a connected socket. False, with errno, when even SO_PEERCRED fails.
 *
 * SO_PEERCRED names the process that called connect(2). Before executable and cgroup are read from /proc/PID, a
 * descriptor of the process is opened (SO_PEERPIDFD, Linux 6.5; on older kernels pidfd_open). Afterwards the descriptor
 * tells whether the process still exists: if it does, the PID was not reused in between. Without SO_PEERPIDFD, a
 * process that ends between connecting and being accepted can be mistaken for a process that reuses its PID.
 *
 * This cannot detect that a process passes its connected socket on, or executes another program later. The executable
 * therefore guards against mistakes, not against a hostile process of the same user; for that use separate users,
 * cgroups, or dedicated sockets. */
bool caller_read(int socket, const char *listener, caller *caller);
void caller_free(caller *caller);

#endif
