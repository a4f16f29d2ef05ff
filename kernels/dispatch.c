/* Which backends there are, and which one serves an algorithm on this host. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

const kernel_backend *const kernel_backends[] = {
    &kernel_ifma8,
    &kernel_software,
#ifdef TESTING_HOOKS
    &kernel_ifma8_portable, /* after software, so that it is chosen only by name */
#endif
    NULL,
};

static const kernel_backend *forced; /* by OFFLOAD_KERNEL_BACKEND */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_environment(void) {
  const char *name = getenv("OFFLOAD_KERNEL_BACKEND");
  if (name != NULL && name[0] != 0) forced = kernel_backend_by_name(name);
}

const kernel_backend *kernel_backend_by_name(const char *name) {
  for (size_t i = 0; kernel_backends[i] != NULL; i++) {
    if (strcmp(kernel_backends[i]->name, name) == 0) return kernel_backends[i]->usable() ? kernel_backends[i] : NULL;
  }
  return NULL;
}

const kernel_backend *kernel_backend_forced(void) {
  pthread_once(&once, read_environment);
  return forced;
}

const kernel_backend *kernel_backend_for(kernel_algorithm algorithm) {
  pthread_once(&once, read_environment);
  if (forced != NULL) return forced->run[algorithm] != NULL ? forced : &kernel_software;
  for (size_t i = 0; kernel_backends[i] != NULL; i++) {
    if (kernel_backends[i]->run[algorithm] != NULL && kernel_backends[i]->usable()) return kernel_backends[i];
  }
  return &kernel_software;
}

static const struct {
  const char *name;
  uint16_t input_size, output_size;
} algorithms[KERNEL_ALGORITHMS] = {
    [KERNEL_RSA2048] = {"rsa2048", 256, 256}, [KERNEL_RSA3072] = {"rsa3072", 384, 384},
    [KERNEL_RSA4096] = {"rsa4096", 512, 512}, [KERNEL_P256] = {"p256", 32, 64},
    [KERNEL_P384] = {"p384", 48, 96},         [KERNEL_ED25519] = {"ed25519", 0, 64},
};

const char *kernel_algorithm_name(kernel_algorithm algorithm) {
  return algorithms[algorithm].name;
}
size_t kernel_input_size(kernel_algorithm algorithm) {
  return algorithms[algorithm].input_size;
}
size_t kernel_output_size(kernel_algorithm algorithm) {
  return algorithms[algorithm].output_size;
}

const char *kernel_status_name(kernel_status status) {
  switch (status) {
    case KERNEL_OK: return "ok";
    case KERNEL_BAD_SIZE: return "bad size";
    case KERNEL_BAD_RANGE: return "bad range";
    case KERNEL_FAULT: return "fault";
    case KERNEL_BAD_KEY: return "bad key";
  }
  return "unknown";
}
