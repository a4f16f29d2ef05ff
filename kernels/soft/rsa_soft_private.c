/* RSA private operation by BoringSSL: output = input^d mod n, by CRT, in constant time.
 *
 * BoringSSL itself raises the result to the public exponent and compares it with the input before it releases it
 * (rsa_default_private_transform), because our keys have a public exponent; so no check is repeated here. It does not
 * blind: BoringSSL dropped blinding because its exponentiation is constant-time. */
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/rsa.h>
#include <string.h>

#include "kernels/key_internal.h"
#include "kernels/soft/soft.h"
#include "kernels/testing_hooks.h"

void rsa_soft_private(kernel_lane lanes[], size_t count, kernel_workspace *workspace) {
  uint8_t result[KERNEL_OUTPUT_MAX];
  for (size_t i = 0; i < count; i++) {
    const rsa_key_numbers *numbers = &lanes[i].key->rsa;
    size_t size = 0;
    bool good = RSA_sign_raw(numbers->rsa, &size, result, sizeof(result), lanes[i].input, lanes[i].input_size,
                             RSA_NO_PADDING) == 1 &&
                size == numbers->size;
    KERNEL_FAULT_POINT(lanes[i].key->algorithm, i, FAULT_SOFTWARE, good = false);
    if (good) {
      memcpy(lanes[i].output, result, size);
      lanes[i].status = KERNEL_OK;
    } else {
      ERR_clear_error();
      lanes[i].status = KERNEL_FAULT;
    }
  }
  OPENSSL_cleanse(result, sizeof(result)); /* the result of a decryption is secret */
}
