#include "kernels/encode/ecdsa_der.h"

#include <string.h>

/* Encodes in the shortest form, with a zero byte in front of a set top bit. */
static size_t encode_integer(const uint8_t *number, size_t size, uint8_t *out) {
  while (size > 1 && number[0] == 0) {
    number++;
    size--;
  }
  size_t sign = number[0] >> 7;
  out[0] = 0x02;
  out[1] = (uint8_t)(size + sign);
  out[2] = 0;
  memcpy(out + 2 + sign, number, size);
  return 2 + sign + size;
}

size_t ecdsa_der_encode(const uint8_t *pair, size_t half, uint8_t der[ECDSA_DER_MAX]) {
  size_t size = 2;
  size += encode_integer(pair, half, der + size);
  size += encode_integer(pair + half, half, der + size);
  der[0] = 0x30;
  der[1] = (uint8_t)(size - 2); /* at most 102: one length byte */
  return size;
}
