/* Stacks for threads that run kernels. Kernels keep their tables in the workspace; what they spill is on the stack,
 * which is therefore treated as the keys are: locked, left out of core dumps, wiped when the thread has ended.
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

/* Starts a thread on a stack of its own. 0, or an errno; then there is nothing to free. Locking is best effort, as it
 * is for keys when the limit is too low: secret_memory_kind() tells, the daemon decides. */
int locked_stack_start(locked_stack *stack, pthread_t *thread, void *(*run)(void *argument), void *argument);

/* After the thread was joined. */
void locked_stack_free(locked_stack *stack);

#endif
