/* Known nonces and injected faults. Without TESTING_HOOKS (in every release) none of this exists in the library: the
 * macros are empty and the functions are not compiled. */
#ifndef KERNELS_TESTING_HOOKS_H
#define KERNELS_TESTING_HOOKS_H

#include "kernels/kernels.h"

typedef enum kernel_fault_place {
  FAULT_RSA_P,          /* the half-size result mod p, before the recombination */
  FAULT_RSA_Q,          /* the half-size result mod q, before the recombination */
  FAULT_RSA_RECOMBINED, /* the full-size result, before its check */
  FAULT_ECDSA_R,        /* r, before s is computed from it */
  FAULT_ECDSA_S,        /* s, before the check */
  FAULT_ECDSA_POINT,    /* a coordinate of k G, before it is made affine */
  FAULT_ED25519_R,      /* the encoded point R */
  FAULT_ED25519_S,      /* the scalar S */
  FAULT_COMB_DIGIT,     /* the digits of k (r of Ed25519): the point of another scalar. Vector kernels only, like: */
  FAULT_ECDSA_INVERSE,  /* 1/ZZ, or 1/k if the bit is 512 or more */
  FAULT_ED25519_NONCE,  /* r, before its point is computed */
  FAULT_SOFTWARE,       /* the software backend's result for the lane is refused, whatever it was */
  FAULT_PLACES,
} kernel_fault_place;

enum { FAULT_ANY_LANE = 0xff };

#ifdef TESTING_HOOKS
#ifdef __cplusplus
extern "C" {
#endif

/* Arms a fault: the next time a kernel passes `place` with that algorithm and lane (the index of the operation in the
 * batch handed to kernel_batch, among those that passed its checks; 0 when software redoes one), in any thread, bit
 * `bit` of the value is flipped, and the fault is used up. Up to 16 at a time; false when there are more. */
bool kernel_inject_fault(kernel_algorithm algorithm, unsigned lane, kernel_fault_place place, unsigned bit);
/* Besides, for a whole process: TESTING_FAULTS=ALGORITHM,PLACE,BIT,EVERY in its environment (p256,ecdsa_s,17,20) flips
 * that bit in every EVERY-th lane that passes the place, permanently. Read once; malformed text ends the process. */
/* Disarms all faults, and returns how many were still armed, because no kernel passed their place. */
unsigned kernel_clear_faults(void);

/* Sends the RSA operations of all builds of the vector kernels one way, whatever the plan of the processor says:
 * "eight", "four" or "lone" (kernels/ifma8/rsa_ifma8_plan.h); "" ends it. False if there is no such way. */
bool kernel_force_rsa_way(const char *name);
/* The same for how they make products: "karatsuba" or "schoolbook" (kernels/ifma8/montgomery_products.h). */
bool kernel_force_rsa_products(const char *name);

/* How many multiplications (vpmadd52, of eight lanes each) the portable vector kernels have run in this thread so
 * far. */
uint64_t kernel_multiplications(void);
/* The same of all vector instructions but loads, stores, copies and constants. */
uint64_t kernel_vector_instructions(void);

/* For kernels, through the macro below: true, once, if the armed fault is this one. */
bool kernel_fault_here(kernel_algorithm algorithm, unsigned lane, kernel_fault_place place, unsigned *bit);

/* ECDSA batches of the calling thread use these nonces (big-endian, `size` bytes each, lane i the i-th) until it is
 * called with count 0. Backends must honour it: the vector ones through ecdsa_nonces_*. */
void kernel_known_nonces(const uint8_t *nonces, size_t size, size_t count);
/* The nonce of a lane, or NULL. */
const uint8_t *kernel_known_nonce(size_t lane, size_t size);

/* Runs the backend's kernel, without the checks of kernel_batch, with every unused lane and the whole workspace filled
 * with `poison`, which must not affect the results. The lanes must be valid. */
void kernel_run_poisoned(const kernel_backend *backend, kernel_algorithm algorithm, kernel_lane lanes[], size_t count,
                         kernel_workspace *workspace, uint8_t poison);

#ifdef __cplusplus
}
#endif

/* KERNEL_FAULT_POINT(KERNEL_RSA2048, i, FAULT_RSA_P, limbs[bit / 52][i] ^= 1ull << bit % 52) : the last argument is
 * run, with `bit` in scope, when the fault strikes. */
#define KERNEL_FAULT_POINT(algorithm, lane, place, flip)                   \
  do {                                                                     \
    unsigned bit;                                                          \
    if (kernel_fault_here((algorithm), (unsigned)(lane), (place), &bit)) { \
      flip;                                                                \
    }                                                                      \
  } while (0)
#else
#define KERNEL_FAULT_POINT(algorithm, lane, place, flip) ((void)0)
#endif

#endif
