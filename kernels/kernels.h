/* The one C interface of the kernels: batches of 1 to 8 private-key operations, one status per lane.
 *
 * A kernel is bare arithmetic. The layer above it, sign.h, does hashing, padding and DER once for every backend. Every
 * backend has the same calls, and one set of tests runs over all of them.
 *
 *   RSA      input   encoded block, big-endian, as long as the modulus, below the modulus
 *            output  input^d mod n, as long as the modulus
 *   ECDSA    input   digest, cut or zero-extended on the left to the size of the group order (32 or 48 bytes)
 *            output  r then s, each as long as the order, big-endian
 *   Ed25519  input   the message, any length
 *            output  64 bytes (RFC 8032)
 *
 * Threads: keys are immutable once made and may be used by any number of threads; a workspace belongs to one thread.
 */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { KERNEL_LANES = 8, KERNEL_OUTPUT_MAX = 512, KERNEL_PLAN_MAX = 1024 };

typedef enum kernel_algorithm {
  KERNEL_RSA2048,
  KERNEL_RSA3072,
  KERNEL_RSA4096,
  KERNEL_P256,
  KERNEL_P384,
  KERNEL_ED25519,
  KERNEL_ALGORITHMS /* how many there are */
} kernel_algorithm;

typedef enum kernel_status {
  KERNEL_OK = 0,
  KERNEL_BAD_SIZE,  /* the input does not have the size that the algorithm requires */
  KERNEL_BAD_RANGE, /* an RSA input is not below the modulus */
  KERNEL_FAULT,     /* the result was wrong, in software too: nothing is released */
  KERNEL_BAD_KEY,   /* the key's algorithm is not the batch's */
} kernel_status;

typedef struct kernel_key kernel_key;             /* key.h */
typedef struct kernel_workspace kernel_workspace; /* scratch memory of one thread, locked, wiped after each batch */

typedef struct kernel_lane {
  const kernel_key *key;
  const uint8_t *input;
  size_t input_size;
  uint8_t *output;      /* room for kernel_output_size(algorithm); untouched unless status is KERNEL_OK */
  kernel_status status; /* out */
  bool redone;          /* out: the vector result failed its check and software computed this one */
} kernel_lane;

typedef void kernel_run(kernel_lane lanes[], size_t count, kernel_workspace *workspace);

/* A backend's kernel. kernel_batch has checked the lanes before: each key is of the batch's algorithm, each input has
 * the right size, RSA inputs are below the modulus. It sets every lane's status to KERNEL_OK, with the output written,
 * or to KERNEL_FAULT, with the output untouched: then kernel_batch has software redo the lane. */
typedef struct kernel_backend {
  const char *name;                   /* "software", "ifma8": shown in logs, metrics and results */
  const char *description;            /* one human-readable line */
  bool (*usable)(void);               /* CPU and operating system can run it */
  kernel_run *run[KERNEL_ALGORITHMS]; /* NULL where it has no kernel for the algorithm */
  /* These make and free what the backend keeps per key (key_internal.h). `prepare` is called once per key, before it is
   * shared, if the backend is usable and has a kernel for the key's algorithm; it returns false when secret memory ran
   * out. Both may be NULL. */
  bool (*prepare)(kernel_key *key);
  void (*release)(kernel_key *key);
  /* Writes what was chosen for this processor (rsa_ifma8_plan.h) as a JSON object, up to KERNEL_PLAN_MAX bytes with the
   * 0 at the end. NULL where nothing is chosen. */
  void (*plan)(kernel_algorithm algorithm, char text[KERNEL_PLAN_MAX]);
} kernel_backend;

/* dispatch.c is the one place where a backend is chosen. */

extern const kernel_backend kernel_software;
extern const kernel_backend kernel_ifma8; /* all run[] are NULL where the compiler could not build it */
#ifdef TESTING_HOOKS
extern const kernel_backend kernel_ifma8_portable; /* the same kernels in plain C, slow: never chosen unless named */
#endif

/* All backends, the preferred one first; NULL ends the list. */
extern const kernel_backend *const kernel_backends[];

/* The backend of that name, or NULL if there is none or this host cannot run it. */
const kernel_backend *kernel_backend_by_name(const char *name);

/* The backend that the environment variable OFFLOAD_KERNEL_BACKEND=software|ifma8 forces (read once), or NULL if it
 * names none that this host can run. */
const kernel_backend *kernel_backend_forced(void);

/* The forced backend, else the best one with a kernel for the algorithm that this host can run; never NULL, falls back
 * to software. */
const kernel_backend *kernel_backend_for(kernel_algorithm algorithm);

/* Runs a batch. Every lane gets a status; `count` is 1 to KERNEL_LANES; lanes may share keys. Never fails as a whole:
 * where the backend has no kernel for the algorithm, software serves. */
void kernel_batch(const kernel_backend *backend, kernel_algorithm algorithm, kernel_lane lanes[], size_t count,
                  kernel_workspace *workspace);

const char *kernel_algorithm_name(kernel_algorithm algorithm); /* "rsa2048", "p256", ... */
size_t kernel_input_size(kernel_algorithm algorithm);          /* 0 for Ed25519: any */
size_t kernel_output_size(kernel_algorithm algorithm);
const char *kernel_status_name(kernel_status status);

/* Lanes whose vector result failed its check since the process started, per algorithm. */
uint64_t kernel_faults(kernel_algorithm algorithm);

/* NULL when locked memory is not available. */
kernel_workspace *kernel_workspace_new(void);
void kernel_workspace_free(kernel_workspace *workspace);

#ifdef __cplusplus
}
#endif
#endif
