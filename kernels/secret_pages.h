/* Locked pages from the operating system, in spans of 16 KiB from one reserved range of addresses. The base of
 * secret_memory.c, which alone includes this.
 *
 * The range makes it cheap to tell where a pointer belongs, and gives each span a number, so that the allocator can
 * keep the metadata of a span in ordinary memory, not among the secrets. Not thread-safe: the caller holds its own
 * lock.
 */
#ifndef KERNELS_SECRET_PAGES_H
#define KERNELS_SECRET_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  SPAN_SIZE = 16 * 1024,
  SPANS_MAX = 64 * 1024, /* 1 GiB of addresses */
};

typedef enum secret_kind { SECRET_NONE, SECRET_MEMFD, SECRET_MLOCK, SECRET_UNLOCKED } secret_kind;

/* The start of the range; NULL before the first growth. */
extern uint8_t *secret_base;

/* Maps at least `spans` more spans after the existing ones, in larger steps while the limit of locked memory allows.
 * Returns the new number of mapped spans, or 0 when the system gives no more. */
size_t secret_pages_grow(size_t spans);
size_t secret_pages_mapped(void);
secret_kind secret_pages_kind(void);

/* For the child of a fork, which does not have the pages: forgets them and starts again with another range. */
void secret_pages_forget(void);

#endif
