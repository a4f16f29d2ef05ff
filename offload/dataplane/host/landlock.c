#include "offload/dataplane/host/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A distribution's kernel headers may be older than the kernels that we run on, so what is newer than ABI 1 is defined
 * here.
 */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

enum { CREATE_RULESET_VERSION = 1, RULE_PATH_BENEATH = 1 };

/* LANDLOCK_ACCESS_FS_ of linux/landlock.h. */
#define WRITE_FILE (1ull << 1)
#define REMOVE_DIR (1ull << 4)
#define REMOVE_FILE (1ull << 5)
#define MAKE_CHAR (1ull << 6)
#define MAKE_DIR (1ull << 7)
#define MAKE_REG (1ull << 8)
#define MAKE_SOCK (1ull << 9)
#define MAKE_FIFO (1ull << 10)
#define MAKE_BLOCK (1ull << 11)
#define MAKE_SYM (1ull << 12)
#define REFER (1ull << 13)       /* ABI 2 */
#define TRUNCATE (1ull << 14)    /* ABI 3 */
#define SCOPE_SIGNAL (1ull << 1) /* ABI 6 */

#define CHANGES_OF_1                                                                                              \
  (WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_CHAR | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_BLOCK | \
   MAKE_SYM)

/* struct landlock_ruleset_attr as of ABI 6; the kernel also accepts the shorter ones of earlier versions. */
struct ruleset {
  uint64_t fs;
  uint64_t net;
  uint64_t scoped;
};

struct beneath {
  uint64_t allowed;
  int32_t parent;
} __attribute__((packed));

int landlock_version(void) {
  long version = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
  return version > 0 ? (int)version : 0;
}

static uint64_t changes_of(int version) {
  return CHANGES_OF_1 | (version >= 2 ? REFER : 0) | (version >= 3 ? TRUNCATE : 0);
}

static bool allow(int ruleset, const landlock_place *place, uint64_t handled) {
  static const uint64_t uses[] = {
      [LANDLOCK_SOCKETS] = MAKE_SOCK | REMOVE_FILE,
      [LANDLOCK_FILES] = WRITE_FILE | MAKE_REG,
      [LANDLOCK_ALL] = UINT64_MAX,
  };
  struct beneath rule = {.allowed = uses[place->use] & handled};
  rule.parent = open(place->folder, O_PATH | O_CLOEXEC | O_DIRECTORY);
  if (rule.parent < 0) return false;
  bool good = syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) == 0;
  int reason = errno;
  close(rule.parent);
  errno = reason;
  return good;
}

bool landlock_confine(const landlock_place *places, size_t count, const char **folder) {
  *folder = NULL;
  int version = landlock_version();
  struct ruleset attributes = {.fs = changes_of(version), .scoped = version >= 6 ? SCOPE_SIGNAL : 0};
  size_t size = version >= 6 ? sizeof attributes : sizeof attributes.fs;
  int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, size, 0);
  if (ruleset < 0) return false;
  bool good = true;
  for (size_t i = 0; good && i < count; i++) {
    good = allow(ruleset, &places[i], attributes.fs);
    if (!good) *folder = places[i].folder;
  }
  good = good && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
  int reason = errno;
  close(ruleset);
  errno = reason;
  return good;
}
