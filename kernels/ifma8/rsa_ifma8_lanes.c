/* Chooses the lanes that an RSA batch runs on: eight of a 512-bit register or four of a 256-bit one.
 *
 * An operation takes two lanes, so a pass of eight lanes carries four operations and a pass of four lanes two. A
 * processor that multiplies 512 bits once per cycle multiplies 256 bits twice (Zen 4), so there a pass of four lanes
 * takes half the time, and one or two operations cost half of what they would on eight. Where it multiplies 512 bits
 * twice per cycle (Zen 5, Intel's servers), both passes take the same time, and nothing is lost:
 *
 *   operations   1 2      3 4    5 6                7 8
 *   lanes        four     eight  eight, then four   eight, twice
 *
 * Compiled without AVX-512 flags. Public: the number of operations.
 */
#include "kernels/ifma8/rsa_ifma8.h"

enum { ON_FOUR_LANES = 2, ON_EIGHT_LANES = 4 };

static void run(rsa_run *eight, rsa_run *four, kernel_algorithm algorithm, kernel_lane lanes[], size_t count,
                kernel_workspace *workspace) {
  size_t rest = count % ON_EIGHT_LANES;
  if (rest > ON_FOUR_LANES) rest = 0;
  if (count > rest) eight(algorithm, lanes, 0, count - rest, workspace);
  if (rest > 0) four(algorithm, lanes, count - rest, rest, workspace);
}

#define ENTRY_POINT(name, algorithm, build)                                                          \
  void name##_private_ifma8##build(kernel_lane lanes[], size_t count, kernel_workspace *workspace) { \
    run(rsa_private_ifma8##build, rsa_private_ifma4##build, algorithm, lanes, count, workspace);     \
  }

#ifdef KERNELS_HAVE_IFMA8
ENTRY_POINT(rsa2048, KERNEL_RSA2048, )
ENTRY_POINT(rsa3072, KERNEL_RSA3072, )
ENTRY_POINT(rsa4096, KERNEL_RSA4096, )
#endif
#ifdef TESTING_HOOKS
ENTRY_POINT(rsa2048, KERNEL_RSA2048, _portable)
ENTRY_POINT(rsa3072, KERNEL_RSA3072, _portable)
ENTRY_POINT(rsa4096, KERNEL_RSA4096, _portable)
#endif
