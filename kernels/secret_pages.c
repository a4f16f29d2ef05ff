/* The sources of locked pages: memfd_secret(2), else mlock(2), else, when neither is allowed, plain memory. */
#include "kernels/secret_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

enum { STEP_SPANS = 16, PAGE = 4096 }; /* grow by 256 KiB, or by a quarter of what there is */

uint8_t *secret_base;
static size_t mapped;
static secret_kind kind;

static uint8_t *from_memfd_secret(size_t size) {
  int descriptor = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
  if (descriptor < 0) return NULL;
  uint8_t *pages = MAP_FAILED;
  if (ftruncate(descriptor, (off_t)size) == 0) {
    pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  }
  close(descriptor);
  if (pages == MAP_FAILED) return NULL;
  /* The mapping is shared: without this a forked child could read and overwrite our keys. */
  if (madvise(pages, size, MADV_DONTFORK) != 0) {
    munmap(pages, size);
    return NULL;
  }
  return pages;
}

static uint8_t *from_anonymous(size_t size, bool lock) {
  uint8_t *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return NULL;
  if (madvise(pages, size, MADV_DONTDUMP) != 0 || madvise(pages, size, MADV_DONTFORK) != 0 ||
      (lock && mlock(pages, size) != 0)) {
    munmap(pages, size);
    return NULL;
  }
  return pages;
}

static uint8_t *pages_of_kind(secret_kind wanted, size_t size) {
  switch (wanted) {
    case SECRET_MEMFD: return from_memfd_secret(size);
    case SECRET_MLOCK: return from_anonymous(size, true);
    case SECRET_UNLOCKED: return from_anonymous(size, false);
    case SECRET_NONE: break;
  }
  return NULL;
}

/* The first kind to try. Tests of the other kinds need a way to pretend that this kernel has no memfd_secret. */
static secret_kind first_kind(void) {
#ifdef TESTING_HOOKS
  const char *kind_wanted = getenv("TESTING_SECRET_MEMORY_KIND");
  if (kind_wanted != NULL && strcmp(kind_wanted, "mlock") == 0) return SECRET_MLOCK;
  if (kind_wanted != NULL && strcmp(kind_wanted, "unlocked") == 0) return SECRET_UNLOCKED;
#endif
  return SECRET_MEMFD;
}

/* The first growth determines which kind this process may have; later ones use the same, so that secret_memory_kind is
 * true of every page. */
static uint8_t *pages_from_system(size_t size) {
  if (kind != SECRET_NONE) return pages_of_kind(kind, size);
  for (secret_kind candidate = first_kind(); candidate <= SECRET_UNLOCKED; candidate++) {
    uint8_t *pages = pages_of_kind(candidate, size);
    if (pages != NULL) {
      kind = candidate;
      return pages;
    }
  }
  return NULL;
}

static bool reserve_range(void) {
  if (secret_base != NULL) return true;
  void *range =
      mmap(NULL, (size_t)SPANS_MAX * SPAN_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) return false;
  /* Never part of a core dump, even if a debugger or a later bug makes it readable. */
  madvise(range, (size_t)SPANS_MAX * SPAN_SIZE, MADV_DONTDUMP);
  secret_base = range;
  return true;
}

static bool map_spans(size_t spans) {
  size_t size = spans * SPAN_SIZE;
  /* Mapped elsewhere and moved: a failing MAP_FIXED could leave a hole in the range, into which another mapping could
   * be placed. */
  uint8_t *pages = pages_from_system(size);
  if (pages == NULL) return false;
  uint8_t *place = secret_base + mapped * SPAN_SIZE;
  if (mremap(pages, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, place) == MAP_FAILED) {
    munmap(pages, size);
    return false;
  }
  /* Touched now, so that no operation takes a page fault later. */
  for (size_t offset = 0; offset < size; offset += PAGE) *(volatile uint8_t *)(place + offset) = 0;
  mapped += spans;
  return true;
}

size_t secret_pages_grow(size_t spans) {
  int saved = errno;
  bool grown = false;
  if (reserve_range() && spans <= SPANS_MAX - mapped) {
    size_t step = mapped / 4 > STEP_SPANS ? mapped / 4 : STEP_SPANS;
    if (step > SPANS_MAX - mapped) step = SPANS_MAX - mapped;
    /* Before the kind is known, a large step might be refused where a small one would be locked: only ask for what is
     * needed. */
    if (step > spans && kind != SECRET_NONE) grown = map_spans(step);
    if (!grown) grown = map_spans(spans);
  }
  errno = saved;
  return grown ? mapped : 0;
}

size_t secret_pages_mapped(void) {
  return mapped;
}
secret_kind secret_pages_kind(void) {
  return kind;
}

void secret_pages_forget(void) {
  secret_base = NULL;
  mapped = 0;
  kind = SECRET_NONE;
}
