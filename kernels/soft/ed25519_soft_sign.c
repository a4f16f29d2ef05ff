/* Ed25519 (RFC 8032) by BoringSSL: output = R then S, 64 bytes. Deterministic. */
#include <openssl/curve25519.h>
#include <openssl/err.h>
#include <string.h>

#include "kernels/key_internal.h"
#include "kernels/soft/soft.h"
#include "kernels/testing_hooks.h"

void ed25519_soft_sign(kernel_lane lanes[], size_t count, kernel_workspace *workspace) {
  for (size_t i = 0; i < count; i++) {
    uint8_t signature[64];
    bool good = ED25519_sign(signature, lanes[i].input, lanes[i].input_size, lanes[i].key->ed25519.seed_public) == 1;
    KERNEL_FAULT_POINT(KERNEL_ED25519, i, FAULT_SOFTWARE, good = false);
    if (good) {
      memcpy(lanes[i].output, signature, sizeof(signature));
      lanes[i].status = KERNEL_OK;
    } else {
      ERR_clear_error();
      lanes[i].status = KERNEL_FAULT;
    }
  }
}
