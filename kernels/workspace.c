/* Scratch memory of one thread. */
#include <openssl/mem.h>

#include "kernels/secret_memory.h"
#include "kernels/workspace_internal.h"

kernel_workspace *kernel_workspace_new(void) {
  return secret_alloc(sizeof(kernel_workspace));
}

void kernel_workspace_free(kernel_workspace *workspace) {
  secret_free(workspace);
}

void kernel_workspace_wipe(kernel_workspace *workspace) {
  size_t used = workspace->used < KERNEL_AREA_SIZE ? workspace->used : KERNEL_AREA_SIZE;
  OPENSSL_cleanse(workspace->area, used);
  workspace->used = 0;
}
