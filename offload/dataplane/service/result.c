#include "offload/dataplane/service/result.h"

#include "kernels/kernels.h"

uint32_t result_backend(const work_queue *work, const operation *op) {
  const kernel_backend *used = work->backends[op->backend];
  return used == &kernel_software ? WIRE_BACKEND_SOFTWARE
         : used == &kernel_ifma8  ? WIRE_BACKEND_IFMA8
                                  : WIRE_BACKEND_UNSPECIFIED;
}
