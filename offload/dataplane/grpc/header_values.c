/* Values of gRPC headers (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). */
#include "offload/dataplane/grpc/header_values.h"

#include <string.h>

#include "offload/dataplane/batching/deadlines.h"

uint64_t header_timeout_ns(const uint8_t *value, size_t size) {
  if (size < 2 || size > 9) return NEVER; /* 1 to 8 digits and a unit */
  uint64_t number = 0;
  for (size_t i = 0; i + 1 < size; i++) {
    if (value[i] < '0' || value[i] > '9') return NEVER;
    number = number * 10 + (value[i] - '0');
  }
  switch (value[size - 1]) { /* at most 10^8 hours: 3.6 * 10^20 ns does not fit; such a time never comes */
    case 'H': return number > 100000 ? NEVER - 1 : number * 3600000000000u;
    case 'M': return number * 60000000000u;
    case 'S': return number * 1000000000u;
    case 'm': return number * 1000000u;
    case 'u': return number * 1000u;
    case 'n': return number;
    default: return NEVER;
  }
}

bool header_is_grpc_content(const uint8_t *value, size_t size) {
  static const char type[] = "application/grpc", proto[] = "application/grpc+proto";
  enum { TYPE_SIZE = sizeof type - 1, PROTO_SIZE = sizeof proto - 1 };
  if (size < TYPE_SIZE || memcmp(value, type, TYPE_SIZE) != 0) return false;
  if (size == TYPE_SIZE || value[TYPE_SIZE] == ';') return true;
  if (size < PROTO_SIZE || memcmp(value, proto, PROTO_SIZE) != 0) return false;
  return size == PROTO_SIZE || value[PROTO_SIZE] == ';';
}

size_t header_percent_encode(const char *text, char *to, size_t room) {
  static const char digits[] = "0123456789ABCDEF";
  size_t used = 0;
  for (; *text != 0; text++) {
    unsigned char byte = (unsigned char)*text;
    bool plain = byte >= 0x20 && byte <= 0x7e && byte != '%';
    if (used + (plain ? 1 : 3) > room) break;
    if (plain) {
      to[used++] = (char)byte;
    } else {
      to[used++] = '%';
      to[used++] = digits[byte >> 4];
      to[used++] = digits[byte & 15];
    }
  }
  return used;
}
