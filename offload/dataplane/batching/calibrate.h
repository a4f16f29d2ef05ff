/* Measures what batches cost on this host, for the cost model and for `offload bench`. */
#ifndef OFFLOAD_CALIBRATE_H
#define OFFLOAD_CALIBRATE_H

#include <stddef.h>

#include "kernels/key.h"
#include "offload/dataplane/batching/cost_model.h"

/* Measures every backend with every class and fills in and settles the model; takes some tens of milliseconds in all.
 * `backends` are those in use, software first. `only`: an index among them that has to run every class it has a kernel
 * for, or -1 to let the cheaper one win. False, with the reason in `error`, when there is no memory for a workspace or
 * a key. */
bool calibrate(cost_model *model, const kernel_backend *const backends[], unsigned count, int only,
               char error[KERNEL_ERROR_MAX]);

/* Runs `rounds` batches of `count` operations on the calling thread and stores the seconds of each. EC keys are fresh,
 * RSA keys are the built-in ones: kernels take the same time for every key. */
bool calibrate_benchmark(const kernel_backend *backend, kernel_algorithm algorithm, unsigned count, unsigned rounds,
                         double seconds[], char error[KERNEL_ERROR_MAX]);

/* Made by generate/calibration_keys.py. */
extern const uint8_t calibration_rsa2048[], calibration_rsa3072[], calibration_rsa4096[];
extern const size_t calibration_rsa2048_size, calibration_rsa3072_size, calibration_rsa4096_size;

#endif
