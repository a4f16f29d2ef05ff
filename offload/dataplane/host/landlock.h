/* Landlock: where the process may still write, and that it looks into no other process. */
#ifndef OFFLOAD_LANDLOCK_H
#define OFFLOAD_LANDLOCK_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum landlock_use {
  LANDLOCK_SOCKETS, /* sockets are made, renamed and removed in this folder */
  LANDLOCK_FILES,   /* files are made and written in this folder */
  LANDLOCK_ALL,     /* everything, below this folder */
} landlock_use;

typedef struct landlock_place {
  const char *folder;
  landlock_use use;
} landlock_place;

/* The version of the kernel's interface; 0 where it has none, or has it turned off. */
int landlock_version(void);

/* For the calling thread and those that it makes later, for ever: files are changed only as `places` say, and processes
 * outside cannot be traced, read or written through /proc, or (since version 6) signalled, whoever runs them. Reading
 * files is not bounded. False with errno, and with the folder that could not be opened, if it was one. */
bool landlock_confine(const landlock_place *places, size_t count, const char **folder);

#ifdef __cplusplus
}
#endif
#endif
