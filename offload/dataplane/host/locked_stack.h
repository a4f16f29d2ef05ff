/* Stacks for threads that run kernels. Kernels keep their tables in the workspace, but registers are spilled to the
 * stack, which is therefore treated like the keys: locked, excluded from core dumps, and wiped when the thread has
 * ended.
 */
#ifndef OFFLOAD_LOCKED_STACK_H
#define OFFLOAD_LOCKED_STACK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct locked_stack {
  void *memory; /* begins with a guard page */
  size_t size;
} locked_stack;

/* Starts a thread on a stack of its own. Returns 0, or an errno, and then there is nothing to free. Locking is best
 * effort, as it is for keys when the limit is too low: secret_memory_kind() reports it, and the daemon decides. */
int locked_stack_start(locked_stack *stack, pthread_t *thread, void *(*run)(void *argument), void *argument);

/* To be called after the thread was joined. */
void locked_stack_free(locked_stack *stack);

#endif
