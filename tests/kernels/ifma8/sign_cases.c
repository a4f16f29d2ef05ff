/* Runs one curve's kernel, built with BOUND_CHECKS, over cases from standard input, eight at a time; no other library.
 *
 *   p256, p384    line in: d k digest      line out: status r s wide, the hash that k would be made of
 *   ed25519       line in: scalar prefix public message ("-" for the empty one)      line out: status signature
 *
 * All in hex, all but the message as long as the curve's numbers. The argument `--break` breaks a bound on purpose. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ecdsa_nonce.h"
#include "kernels/ifma8/sign_ifma8.h"
#include "kernels/ifma8/vec.h"
#include "kernels/key_internal.h"
#include "kernels/workspace_internal.h"

#if defined(CURVE_p256)
#define RUN VEC_NAME(p256_sign)
enum { SIZE = 32, ALGORITHM = KERNEL_P256 };
#elif defined(CURVE_p384)
#define RUN VEC_NAME(p384_sign)
enum { SIZE = 48, ALGORITHM = KERNEL_P384 };
#else
#define RUN VEC_NAME(ed25519_sign)
enum { SIZE = 32, ALGORITHM = KERNEL_ED25519 };
#endif
void VEC_NAME(p256_sign)(kernel_lane lanes[], size_t count, kernel_workspace *workspace);
void VEC_NAME(p384_sign)(kernel_lane lanes[], size_t count, kernel_workspace *workspace);
void VEC_NAME(ed25519_sign)(kernel_lane lanes[], size_t count, kernel_workspace *workspace);

enum { MESSAGE_MAX = 4096 };

static struct kernel_workspace workspace;
static struct kernel_key keys[8];
static uint8_t nonces[8][SIZE], messages[8][MESSAGE_MAX], outputs[8][2 * SIZE];
#if !defined(CURVE_ed25519)
static uint8_t wides[8][ECDSA_NONCE_WIDE];
#endif

#if !defined(CURVE_ed25519)
static void words_of(uint64_t *words, const uint8_t *big_endian) {
  for (int i = 0; i < SIZE / 8; i++) {
    uint64_t word;
    memcpy(&word, big_endian + SIZE - 8 - 8 * i, 8);
    words[i] = __builtin_bswap64(word);
  }
}

/* In place of kernels/ecdsa_nonce.c: the nonces come with the cases. */
void ecdsa_nonce_fresh(uint8_t fresh[ECDSA_NONCE_FRESH]) {
  memset(fresh, 0, ECDSA_NONCE_FRESH);
}
void ecdsa_nonce_from_wide(kernel_algorithm algorithm, size_t lane, const uint8_t wide[ECDSA_NONCE_WIDE],
                           uint64_t k[]) {
  (void)algorithm;
  memcpy(wides[lane], wide, ECDSA_NONCE_WIDE);
  words_of(k, nonces[lane]);
}
#endif

static size_t from_hex(uint8_t *to, const char *hex) {
  size_t size = strcmp(hex, "-") == 0 ? 0 : strlen(hex) / 2;
  for (size_t i = 0; i < size; i++) {
    unsigned byte;
    if (sscanf(hex + 2 * i, "%2x", &byte) != 1) exit(2);
    to[i] = (uint8_t)byte;
  }
  return size;
}

static bool read_case(kernel_lane *lane, int i) {
  static char first[2 * SIZE + 1], second[2 * SIZE + 1], message[2 * MESSAGE_MAX + 1];
  memset(&keys[i], 0, sizeof(keys[i]));
  keys[i].algorithm = ALGORITHM;
#if defined(CURVE_ed25519)
  static char public[2 * SIZE + 1];
  if (scanf("%64s %64s %64s %8192s", first, second, public, message) != 4) return false;
  from_hex(keys[i].ed25519.scalar, first);
  from_hex(keys[i].ed25519.prefix, second);
  from_hex(keys[i].ed25519.seed_public + SIZE, public);
#else
  if (scanf("%96s %96s %96s", first, second, message) != 3) return false;
  from_hex(keys[i].ec.d_bytes, first);
  words_of(keys[i].ec.d, keys[i].ec.d_bytes);
  from_hex(nonces[i], second);
#endif
  size_t size = from_hex(messages[i], message);
  *lane = (kernel_lane){.key = &keys[i], .input = messages[i], .input_size = size, .output = outputs[i]};
  return true;
}

static void print_hex(const uint8_t *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) printf("%02x", bytes[i]);
}

int main(int count, char *arguments[]) {
  if (count > 1 && strcmp(arguments[1], "--break") == 0) {
    VEC_ASSERT_WITHIN(vec_all(UINT64_C(1) << 52), 0, (INT64_C(1) << 52) - 1);
    return 0;
  }
  for (;;) {
    kernel_lane lanes[8];
    int used = 0;
    while (used < 8 && read_case(&lanes[used], used)) used++;
    if (used == 0) return 0;
    RUN(lanes, (size_t)used, &workspace);
    for (int i = 0; i < used; i++) {
      printf("%d ", lanes[i].status);
      print_hex(outputs[i], SIZE);
      printf(" ");
      print_hex(outputs[i] + SIZE, SIZE);
#if !defined(CURVE_ed25519)
      printf(" ");
      print_hex(wides[i], ECDSA_NONCE_WIDE);
#endif
      printf("\n");
    }
  }
}
