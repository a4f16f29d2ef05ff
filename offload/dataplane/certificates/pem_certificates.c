/* Parses PEM (RFC 7468), as lenient about white space and text between blocks as OpenSSL, and strict about the
 * blocks. */
#include "offload/dataplane/certificates/pem_certificates.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/base64.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/secret_memory.h"

static const char BEGIN[] = "-----BEGIN ";
static const char END[] = "-----END ";
static const char DASHES[] = "-----";
enum { LABEL_MAX = 64 };

typedef struct text_view {
  const uint8_t *data;
  size_t size;
} text_view;

__attribute__((format(printf, 2, 3))) static bool fail(char error[PEM_ERROR_MAX], const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error, PEM_ERROR_MAX, format, arguments);
  va_end(arguments);
  return false;
}

/* Takes one line off the front of `rest`, without its end and trailing white space. */
static bool next_line(text_view *rest, text_view *line) {
  if (rest->size == 0) {
    return false;
  }
  const uint8_t *newline = memchr(rest->data, '\n', rest->size);
  size_t taken = newline ? (size_t)(newline - rest->data) + 1 : rest->size;
  line->data = rest->data;
  line->size = taken;
  rest->data += taken;
  rest->size -= taken;
  while (line->size > 0 && memchr(" \t\r\n", line->data[line->size - 1], 4)) {
    line->size--;
  }
  return true;
}

/* Whether the line is `marker`, a label, and dashes. */
static bool boundary(text_view line, const char *marker, text_view *label) {
  size_t head = strlen(marker), tail = strlen(DASHES);
  if (line.size < head + tail || memcmp(line.data, marker, head) != 0 ||
      memcmp(line.data + line.size - tail, DASHES, tail) != 0) {
    return false;
  }
  label->data = line.data + head;
  label->size = line.size - head - tail;
  return true;
}

static bool label_is(text_view label, const char *text) {
  return label.size == strlen(text) && memcmp(label.data, text, label.size) == 0;
}

static bool label_ends_with(text_view label, const char *text) {
  size_t size = strlen(text);
  return label.size >= size && memcmp(label.data + label.size - size, text, size) == 0;
}

/* Finds the END line of the block and returns what precedes it. */
static bool block_body(text_view *rest, text_view label, text_view *body, char error[PEM_ERROR_MAX]) {
  text_view line, end_label;
  *body = (text_view){.data = rest->data};
  while (next_line(rest, &line)) {
    if (boundary(line, BEGIN, &end_label)) {
      return fail(error, "a PEM block begins inside another one");
    }
    if (boundary(line, END, &end_label)) {
      if (end_label.size != label.size || memcmp(end_label.data, label.data, label.size) != 0) {
        return fail(error, "a PEM block ends with another label than it began with");
      }
      body->size = (size_t)(line.data - body->data);
      return true;
    }
  }
  return fail(error, "a PEM block has no END line: the file is truncated");
}

static bool add_certificate(text_view body, pem_certificates *found, uint8_t *scratch, char error[PEM_ERROR_MAX]) {
  size_t start = found->count ? found->ends[found->count - 1] : 0;
  if (found->count == PEM_CERTIFICATES_MAX) {
    return fail(error, "more than %d certificates", PEM_CERTIFICATES_MAX);
  }
  size_t packed = 0;
  for (size_t i = 0; i < body.size; i++) {
    uint8_t byte = body.data[i];
    if (byte != ' ' && byte != '\t' && byte != '\r' && byte != '\n') {
      scratch[packed++] = byte;
    }
  }
  size_t room, size;
  if (packed == 0 || !EVP_DecodedLength(&room, packed) ||
      !EVP_DecodeBase64(found->der + start, &size, room, scratch, packed)) {
    return fail(error, "certificate %zu is not valid base64", found->count + 1);
  }
  found->ends[found->count++] = start + size;
  return true;
}

static bool parse(text_view rest, pem_certificates *found, uint8_t *scratch, char error[PEM_ERROR_MAX]) {
  text_view line, label, body;
  while (next_line(&rest, &line)) {
    if (!boundary(line, BEGIN, &label)) {
      continue;
    }
    if (label.size > LABEL_MAX) {
      return fail(error, "a PEM label is longer than %d characters", LABEL_MAX);
    }
    if (!block_body(&rest, label, &body, error)) {
      return false;
    }
    if (label_ends_with(label, "PRIVATE KEY")) {
      found->private_keys++;
    } else if (label_is(label, "CERTIFICATE") || label_is(label, "X509 CERTIFICATE")) {
      if (!add_certificate(body, found, scratch, error)) {
        return false;
      }
    }
  }
  return true;
}

bool pem_certificates_parse(const uint8_t *text, size_t size, pem_certificates *found, char error[PEM_ERROR_MAX]) {
  memset(found, 0, sizeof *found);
  /* Base64 shrinks, and EVP_DecodedLength rounds up by less than 3 bytes per block. */
  found->der = malloc(size + 3);
  uint8_t *scratch = malloc(size + 1);
  bool good = false;
  if (found->der && scratch) {
    good = parse((text_view){text, size}, found, scratch, error);
  } else {
    fail(error, "out of memory");
  }
  free(scratch);
  return good;
}

/* Reads all of a regular file into secret memory; *size is the number of bytes read. */
static uint8_t *read_file(int descriptor, size_t *size, char error[PEM_ERROR_MAX]) {
  struct stat status;
  if (fstat(descriptor, &status) != 0) {
    fail(error, "cannot be examined: %s", strerror(errno));
    return NULL;
  }
  if (!S_ISREG(status.st_mode)) {
    fail(error, "not a regular file");
    return NULL;
  }
  if (status.st_size > PEM_FILE_MAX) {
    fail(error, "larger than %d bytes", PEM_FILE_MAX);
    return NULL;
  }
  size_t room = (size_t)status.st_size + 1; /* one more, to notice a file that grows */
  uint8_t *text = secret_alloc(room);
  if (!text) {
    fail(error, "no secret memory left to read it into (raise the limit of locked memory)");
    return NULL;
  }
  *size = 0;
  while (*size < room) {
    ssize_t got = read(descriptor, text + *size, room - *size);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      fail(error, "cannot be read: %s", strerror(errno));
      secret_free(text);
      return NULL;
    }
    if (got == 0) {
      return text;
    }
    *size += (size_t)got;
  }
  fail(error, "changed while it was read");
  secret_free(text);
  return NULL;
}

bool pem_certificates_read(const char *path, pem_certificates *found, char error[PEM_ERROR_MAX]) {
  memset(found, 0, sizeof *found);
  /* O_NONBLOCK: a FIFO in place of the file must not block the daemon. */
  int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (descriptor < 0) {
    return fail(error, "cannot be opened: %s", strerror(errno));
  }
  size_t size;
  uint8_t *text = read_file(descriptor, &size, error);
  close(descriptor);
  if (!text) {
    return false;
  }
  bool good = pem_certificates_parse(text, size, found, error);
  secret_free(text);
  return good;
}

void pem_certificates_free(pem_certificates *found) {
  free(found->der);
  memset(found, 0, sizeof *found);
}
