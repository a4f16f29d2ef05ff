#include "offload/dataplane/host/locked_stack.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STACK_SIZE = 2 * 1024 * 1024 };
#else
enum { STACK_SIZE = 256 * 1024 };
#endif

static size_t page_size(void) {
  return (size_t)sysconf(_SC_PAGESIZE);
}

static int map(locked_stack *stack) {
  size_t page = page_size();
  stack->size = STACK_SIZE + page;
  stack->memory = mmap(NULL, stack->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack->memory == MAP_FAILED) {
    stack->memory = NULL;
    return errno;
  }
  mprotect(stack->memory, page, PROT_NONE);
  madvise(stack->memory, stack->size, MADV_DONTDUMP);
  (void)mlock((char *)stack->memory + page, STACK_SIZE);
  return 0;
}

/* Python handles signals, on its own threads; but a crash should still be reported where it happens. */
static void block_signals(sigset_t *before) {
  static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP};
  sigset_t blocked;
  sigfillset(&blocked);
  for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) sigdelset(&blocked, crashes[i]);
  pthread_sigmask(SIG_SETMASK, &blocked, before);
}

int locked_stack_start(locked_stack *stack, pthread_t *thread, void *(*run)(void *argument), void *argument) {
  int failure = map(stack);
  if (failure != 0) return failure;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, (char *)stack->memory + page_size(), STACK_SIZE);
  sigset_t before;
  block_signals(&before); /* the thread inherits it */
  failure = pthread_create(thread, &attributes, run, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (failure != 0) locked_stack_free(stack);
  return failure;
}

void locked_stack_free(locked_stack *stack) {
  if (stack->memory == NULL) return;
  explicit_bzero((char *)stack->memory + page_size(), STACK_SIZE);
  munmap(stack->memory, stack->size);
  stack->memory = NULL;
}
