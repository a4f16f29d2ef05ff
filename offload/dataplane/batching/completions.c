#include "offload/dataplane/batching/completions.h"

operation *completions_take(completions *done) {
  operation *top = atomic_exchange(&done->top, NULL);
  operation *in_order = NULL;
  while (top != NULL) {
    operation *next = top->next;
    top->next = in_order;
    in_order = top;
    top = next;
  }
  return in_order;
}
