/* Wipes what called code left on the stack. */
#ifndef KERNELS_STACK_H
#define KERNELS_STACK_H

/* Overwrites the 32 KiB of stack below the caller. BoringSSL keeps its long-lived secrets on the heap, which is secret
 * memory, but leaves pieces on the stack that it does not wipe: the expanded key of Ed25519, scalars of ECDSA, the
 * table of an RSA exponentiation. Called once after each batch and each key that was parsed (about 0.3 us). */
void wipe_stack_below(void);

#endif
