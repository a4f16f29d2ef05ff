/* Runs a batch: checks the lanes, hands the good ones to the backend, redoes failed lanes in software, and wipes the
 * workspace. */
#include <stdatomic.h>
#include <string.h>

#include "kernels/key_internal.h"
#include "kernels/stack.h"
#include "kernels/workspace_internal.h"

static atomic_uint_fast64_t faults[KERNEL_ALGORITHMS];

uint64_t kernel_faults(kernel_algorithm algorithm) {
  return atomic_load_explicit(&faults[algorithm], memory_order_relaxed);
}

/* Inputs are public here: either padded by the layer above, or a ciphertext from the wire. */
static kernel_status check(kernel_algorithm algorithm, const kernel_lane *lane) {
  if (lane->key == NULL || lane->key->algorithm != algorithm) return KERNEL_BAD_KEY;
  size_t wanted = kernel_input_size(algorithm);
  if (wanted != 0 && lane->input_size != wanted) return KERNEL_BAD_SIZE;
  if (algorithm <= KERNEL_RSA4096 && memcmp(lane->input, lane->key->rsa.n_bytes, wanted) >= 0) return KERNEL_BAD_RANGE;
  return KERNEL_OK;
}

static void redo(kernel_algorithm algorithm, kernel_lane *lane, kernel_workspace *workspace) {
  atomic_fetch_add_explicit(&faults[algorithm], 1, memory_order_relaxed);
  kernel_software.run[algorithm](lane, 1, workspace);
  lane->redone = lane->status == KERNEL_OK;
}

void kernel_batch(const kernel_backend *backend, kernel_algorithm algorithm, kernel_lane lanes[], size_t count,
                  kernel_workspace *workspace) {
  kernel_lane good[KERNEL_LANES];
  size_t place[KERNEL_LANES];
  size_t goods = 0;
  for (size_t i = 0; i < count; i++) {
    lanes[i].redone = false;
    lanes[i].status = check(algorithm, &lanes[i]);
    if (lanes[i].status != KERNEL_OK) continue;
    place[goods] = i;
    good[goods++] = lanes[i];
  }
  if (goods == 0) return;

  if (backend->run[algorithm] == NULL || !backend->usable()) backend = &kernel_software;
  /* The default, so that a kernel that skips a lane releases nothing. */
  for (size_t i = 0; i < goods; i++) good[i].status = KERNEL_FAULT;
  backend->run[algorithm](good, goods, workspace);
  for (size_t i = 0; i < goods; i++) {
    if (good[i].status == KERNEL_FAULT && backend != &kernel_software) redo(algorithm, &good[i], workspace);
    lanes[place[i]].status = good[i].status;
    lanes[place[i]].redone = good[i].redone;
  }
  kernel_workspace_wipe(workspace);
  wipe_stack_below();
}
