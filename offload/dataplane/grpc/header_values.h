/* Values of gRPC headers (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). */
#ifndef OFFLOAD_GRPC_HEADER_VALUES_H
#define OFFLOAD_GRPC_HEADER_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t header_timeout_ns(const uint8_t *value, size_t size); /* NEVER (deadlines.h) when malformed */
bool header_is_grpc_content(const uint8_t *value, size_t size);
size_t header_percent_encode(const char *text, char *to, size_t room);

#endif
