/* See sha512_ifma8.h. */
#include <string.h>

#include "kernels/ifma8/sha512_ifma8.h"
#include "sha512_constants.h"

static size_t message_size(const sha512_message *message) {
  size_t size = 0;
  for (int i = 0; i < SHA512_PIECES; i++) size += message->size[i];
  return size;
}

/* Counts the blocks including the byte 0x80 and the 16 bytes of the length. */
static size_t message_blocks(const sha512_message *message) {
  return (message_size(message) + 1 + 16 + SHA512_BLOCK - 1) / SHA512_BLOCK;
}

/* Block `index` of the padded message; zeros past its end. */
static void fill_block(uint8_t block[SHA512_BLOCK], const sha512_message *message, size_t index) {
  const size_t from = index * SHA512_BLOCK, to = from + SHA512_BLOCK;
  size_t start = 0; /* offset of the piece in the message */
  memset(block, 0, SHA512_BLOCK);
  for (int i = 0; i < SHA512_PIECES; i++) {
    const size_t end = start + message->size[i];
    const size_t first = start > from ? start : from, last = end < to ? end : to;
    if (first < last) memcpy(block + (first - from), message->piece[i] + (first - start), last - first);
    start = end;
  }
  if (start >= from && start < to) block[start - from] = 0x80;
  if (index + 1 == message_blocks(message)) {
    const uint64_t bits = __builtin_bswap64((uint64_t)start * 8);
    memcpy(block + SHA512_BLOCK - 8, &bits, 8);
  }
}

static void load_schedule(sha512_work *work) {
  for (size_t i = 0; i < 16; i++) {
    uint64_t words[8];
    for (int lane = 0; lane < 8; lane++) {
      memcpy(&words[lane], work->blocks[lane] + 8 * i, 8);
      words[lane] = __builtin_bswap64(words[lane]);
    }
    work->schedule[i] = vec_load(words);
  }
}

VEC_INLINE vec next_word(const vec w[16], int i) {
  const vec x = w[(i + 1) & 15], y = w[(i + 14) & 15];
  const vec s0 = vec_xor3(vec_rotate_right(x, 1), vec_rotate_right(x, 8), vec_shift_right(x, 7));
  const vec s1 = vec_xor3(vec_rotate_right(y, 19), vec_rotate_right(y, 61), vec_shift_right(y, 6));
  return vec_add(vec_add(w[i & 15], s0), vec_add(w[(i + 9) & 15], s1));
}

/* The 80 rounds on one block; s is the state. */
static void compress(vec s[8], vec w[16]) {
  vec a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
  for (int block = 0; block < 80; block += 16) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      const vec s1 = vec_xor3(vec_rotate_right(e, 14), vec_rotate_right(e, 18), vec_rotate_right(e, 41));
      const vec s0 = vec_xor3(vec_rotate_right(a, 28), vec_rotate_right(a, 34), vec_rotate_right(a, 39));
      const vec constant_word = vec_add(w[i], vec_all(sha512_round_constants[block + i]));
      const vec t1 = vec_add(vec_add(vec_add(h, constant_word), vec_choose(e, f, g)), s1);
      const vec t2 = vec_add(s0, vec_majority(a, b, c));
      h = g, g = f, f = e, e = vec_add(d, t1);
      d = c, c = b, b = a, a = vec_add(t1, t2);
      w[i] = next_word(w, i);
    }
  }
  const vec last[8] = {a, b, c, d, e, f, g, h};
  for (int i = 0; i < 8; i++) s[i] = vec_add(s[i], last[i]);
}

void VEC_NAME(sha512_batch)(const sha512_message messages[8], sha512_work *work, vec digest[8]) {
  size_t blocks[8], most = 0;
  for (int lane = 0; lane < 8; lane++) {
    blocks[lane] = message_blocks(&messages[lane]);
    if (blocks[lane] > most) most = blocks[lane];
  }
  for (int i = 0; i < 8; i++) digest[i] = vec_all(sha512_start[i]);
  for (size_t index = 0; index < most; index++) {
    vec state[8];
    vec_mask running = 0; /* lanes whose message has not ended: public */
    for (int lane = 0; lane < 8; lane++) {
      fill_block(work->blocks[lane], &messages[lane], index);
      running |= (vec_mask)((index < blocks[lane]) << lane);
    }
    load_schedule(work);
    memcpy(state, digest, sizeof(state));
    compress(state, work->schedule);
    for (int i = 0; i < 8; i++) digest[i] = vec_select(running, state[i], digest[i]);
  }
}
