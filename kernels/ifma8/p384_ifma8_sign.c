/* ECDSA P-384, eight signatures at a time: the curve-independent body of ecdsa_ifma8_sign.h over p384_ifma8_field.h.
 * Formula, lanes, bounds, secrets and the check before release are documented there. */
#include "kernels/ifma8/p384_ifma8_field.h"
#include "kernels/ifma8/sign_ifma8.h"

#define ECDSA_SIGN VEC_NAME(p384_sign)
#define ECDSA_ALGORITHM KERNEL_P384
#define ECDSA_TABLE p384_comb
#include "kernels/ifma8/ecdsa_ifma8_sign.h"
