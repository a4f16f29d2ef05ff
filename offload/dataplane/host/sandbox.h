/* Restricts the serving process: no privileges, and only the system calls that it needs. */
#ifndef OFFLOAD_SANDBOX_H
#define OFFLOAD_SANDBOX_H

#include <stdbool.h>

/* Gives up every capability of the calling thread (and of the threads it makes later), and the ways to gain new ones:
 * bounding set, ambient set, no_new_privs. False with errno. */
bool sandbox_drop_privileges(void);

/* From here on, all threads get EPERM for system calls that are not in the list of sandbox.c; calls of another ABI end
 * the process. `programs`: execve stays allowed, for issuers that are programs. False with errno. */
bool sandbox_filter_calls(bool programs);

/* Whether the filter allows this call; for tests that compare the list with what the daemon calls. */
bool sandbox_allows(long call, bool programs);

#endif
