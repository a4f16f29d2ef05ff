/* ECDSA by BoringSSL: output = r then s, big-endian, each as long as the order.
 *
 * BoringSSL's nonces are hedged: drawn by rejection from its generator, with a hash of private key and digest mixed in.
 * The input has the length of the order already, so it is neither cut nor extended there. */
#include <openssl/bn.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <string.h>

#include "kernels/key_internal.h"
#include "kernels/soft/soft.h"
#include "kernels/testing_hooks.h"

#ifdef TESTING_HOOKS
static bool sign_with_known_nonce(const kernel_lane *lane, const uint8_t *nonce, uint8_t *signature) {
  size_t half = lane->input_size;
  ECDSA_SIG *pair =
      ECDSA_sign_with_nonce_and_leak_private_key_for_testing(lane->input, half, lane->key->ec.ec, nonce, half);
  if (pair == NULL) return false;
  bool good = BN_bn2bin_padded(signature, half, ECDSA_SIG_get0_r(pair)) == 1 &&
              BN_bn2bin_padded(signature + half, half, ECDSA_SIG_get0_s(pair)) == 1;
  ECDSA_SIG_free(pair);
  return good;
}
#endif

static bool sign(const kernel_lane *lane, size_t index, uint8_t *signature, size_t room) {
  size_t size = 0;
#ifdef TESTING_HOOKS
  const uint8_t *nonce = kernel_known_nonce(index, lane->input_size);
  if (nonce != NULL) return sign_with_known_nonce(lane, nonce, signature);
#endif
  return ECDSA_sign_p1363(lane->input, lane->input_size, signature, &size, room, lane->key->ec.ec) == 1 &&
         size == 2 * lane->input_size;
}

void ecdsa_soft_sign(kernel_lane lanes[], size_t count, kernel_workspace *workspace) {
  uint8_t signature[2 * EC_WORDS_MAX * 8];
  for (size_t i = 0; i < count; i++) {
    bool good = sign(&lanes[i], i, signature, sizeof(signature));
    KERNEL_FAULT_POINT(lanes[i].key->algorithm, i, FAULT_SOFTWARE, good = false);
    if (good) {
      memcpy(lanes[i].output, signature, 2 * lanes[i].input_size);
      lanes[i].status = KERNEL_OK;
    } else {
      ERR_clear_error();
      lanes[i].status = KERNEL_FAULT;
    }
  }
}
