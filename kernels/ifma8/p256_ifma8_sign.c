/* ECDSA P-256, eight signatures at a time: the curve-independent body of ecdsa_ifma8_sign.h over p256_ifma8_field.h.
 * Formula, lanes, bounds, secrets and the check before release are documented there. */
#include "kernels/ifma8/p256_ifma8_field.h"
#include "kernels/ifma8/sign_ifma8.h"

#define ECDSA_SIGN VEC_NAME(p256_sign)
#define ECDSA_ALGORITHM KERNEL_P256
#define ECDSA_TABLE p256_comb
#include "kernels/ifma8/ecdsa_ifma8_sign.h"
