/* Landlock: restricts where the process may write, and denies it access to other processes. */
#ifndef OFFLOAD_LANDLOCK_H
#define OFFLOAD_LANDLOCK_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum landlock_use {
  LANDLOCK_SOCKETS, /* sockets may be made, renamed and removed in this folder */
  LANDLOCK_FILES,   /* files may be made and written in this folder */
  LANDLOCK_ALL,     /* everything is allowed below this folder */
} landlock_use;

typedef struct landlock_place {
  const char *folder;
  landlock_use use;
} landlock_place;

/* The version of the kernel's Landlock ABI; 0 when it has none, or it is disabled. */
int landlock_version(void);

/* Restricts the calling thread and those that it makes later, irrevocably: files may be changed only as `places` allow,
 * and processes outside cannot be traced, read or written through /proc, or (since version 6) signalled, whoever runs
 * them. Reading files is not restricted. False with errno, and with the folder that could not be opened, if it was
 * one. */
bool landlock_confine(const landlock_place *places, size_t count, const char **folder);

#ifdef __cplusplus
}
#endif
#endif
