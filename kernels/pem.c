#include "kernels/pem.h"

#include <stdio.h>
#include <string.h>

static const char begin_mark[] = "-----BEGIN ";
static const char end_mark[] = "-----END ";
static const char dashes[] = "-----";

typedef struct text_view {
  const uint8_t *data;
  size_t size;
} text_view;

static const uint8_t *find(text_view text, const char *mark) {
  return text.size == 0 ? NULL : memmem(text.data, text.size, mark, strlen(mark));
}

static text_view after(text_view text, const uint8_t *position) {
  return (text_view){position, text.size - (size_t)(position - text.data)};
}

bool pem_is_there(const uint8_t *text, size_t size) {
  return find((text_view){text, size}, begin_mark) != NULL;
}

/* All ones if low <= x <= high, else 0; for 0 <= x < 256. */
static unsigned in_range(unsigned x, unsigned low, unsigned high) {
  return ((x - low) >> 31 | (high - x) >> 31) - 1u;
}

/* Value of a base64 digit, or 64 and more; no table, no branch: the text is the key. */
static unsigned digit_value(unsigned c) {
  unsigned value = 64;
  value ^= in_range(c, 'A', 'Z') & ((c - 'A') ^ 64);
  value ^= in_range(c, 'a', 'z') & ((c - 'a' + 26) ^ 64);
  value ^= in_range(c, '0', '9') & ((c - '0' + 52) ^ 64);
  value ^= in_range(c, '+', '+') & (62 ^ 64);
  value ^= in_range(c, '/', '/') & (63 ^ 64);
  return value;
}

static bool is_space(uint8_t c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Strict except for white space: requires whole groups of four, and padding only at the end. */
static bool decode(text_view body, uint8_t *out, size_t *out_size) {
  uint32_t group = 0, bad = 0;
  unsigned digits = 0, padding = 0;
  *out_size = 0;
  for (size_t i = 0; i < body.size; i++) {
    if (is_space(body.data[i])) continue;
    if (body.data[i] == '=') {
      if (digits < 2) return false;
      group <<= 6;
      padding++;
    } else {
      unsigned value = digit_value(body.data[i]);
      bad |= value >> 6;
      if (padding != 0) return false;
      group = group << 6 | (value & 63);
    }
    if (++digits < 4) continue;
    out[(*out_size)++] = (uint8_t)(group >> 16);
    if (padding < 2) out[(*out_size)++] = (uint8_t)(group >> 8);
    if (padding < 1) out[(*out_size)++] = (uint8_t)group;
    if (padding > 0) {
      for (i++; i < body.size; i++) {
        if (!is_space(body.data[i])) return false;
      }
    }
    digits = group = 0;
  }
  return digits == 0 && bad == 0;
}

typedef struct pem_block {
  text_view label, body;
} pem_block;

/* Finds the next block and the text after it. Returns 1, 0 at the end, or -1 when the block is malformed. */
static int next_block(text_view *text, pem_block *block) {
  const uint8_t *begin = find(*text, begin_mark);
  if (begin == NULL) return 0;
  text_view rest = after(*text, begin + strlen(begin_mark));
  const uint8_t *label_end = find(rest, dashes);
  if (label_end == NULL) return -1;
  block->label = (text_view){rest.data, (size_t)(label_end - rest.data)};
  rest = after(rest, label_end + strlen(dashes));
  const uint8_t *end = find(rest, end_mark);
  if (end == NULL) return -1;
  block->body = (text_view){rest.data, (size_t)(end - rest.data)};
  rest = after(rest, end + strlen(end_mark));
  size_t label = block->label.size;
  if (rest.size < label + strlen(dashes) || memcmp(rest.data, block->label.data, label) != 0 ||
      memcmp(rest.data + label, dashes, strlen(dashes)) != 0) {
    return -1;
  }
  *text = after(rest, rest.data + label + strlen(dashes));
  return 1;
}

static bool is_label(const pem_block *block, const char *label) {
  return block->label.size == strlen(label) && memcmp(block->label.data, label, block->label.size) == 0;
}

static bool fail(char error[KERNEL_ERROR_MAX], const char *reason) {
  snprintf(error, KERNEL_ERROR_MAX, "%s", reason);
  return false;
}

static bool form_of_label(const pem_block *block, private_key_form *form) {
  if (is_label(block, "PRIVATE KEY")) {
    *form = FORM_PKCS8;
  } else if (is_label(block, "RSA PRIVATE KEY")) {
    *form = FORM_PKCS1;
  } else if (is_label(block, "EC PRIVATE KEY")) {
    *form = FORM_SEC1;
  } else {
    return false;
  }
  return true;
}

static const char encrypted[] = "the private key is encrypted; store it decrypted, readable by the daemon alone";

/* Names what was found instead, because a certificate in place of a key is the usual mistake. */
static bool fail_without_key(char error[KERNEL_ERROR_MAX], const pem_block *seen, bool any) {
  if (!any) return fail(error, "no PEM block found");
  int length = seen->label.size > 64 ? 64 : (int)seen->label.size;
  char label[65];
  for (int i = 0; i < length; i++) {
    uint8_t c = seen->label.data[i];
    label[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
  }
  snprintf(error, KERNEL_ERROR_MAX,
           "no private key found, only \"%.*s\"; wanted PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY", length, label);
  return false;
}

bool pem_private_key(const uint8_t *data, size_t size, uint8_t *der, size_t *der_size, private_key_form *form,
                     char error[KERNEL_ERROR_MAX]) {
  text_view text = {data, size};
  pem_block block = {0}, seen = {0};
  bool any = false, found = false;
  int got;
  while ((got = next_block(&text, &block)) == 1) {
    any = true;
    seen = block;
    if (is_label(&block, "ENCRYPTED PRIVATE KEY")) return fail(error, encrypted);
    private_key_form this_form;
    if (!form_of_label(&block, &this_form)) continue;
    if (found) return fail(error, "the file holds more than one private key");
    if (find(block.body, "Proc-Type:") != NULL) return fail(error, encrypted);
    if (!decode(block.body, der, der_size)) return fail(error, "the PEM block of the private key is not valid base64");
    *form = this_form;
    found = true;
  }
  if (got < 0) return fail(error, "a PEM block is malformed or cut off");
  return found || fail_without_key(error, &seen, any);
}
