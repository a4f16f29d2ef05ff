// Values of HTTP/2 and gRPC headers.
#ifndef TLS_OFFLOAD_GRPC_HEADERS_H
#define TLS_OFFLOAD_GRPC_HEADERS_H

#include <string>
#include <string_view>

namespace tls_offload {

std::string percent_decoded(std::string_view text);
// Returns -1 when the text is not a number, or far too large.
int parse_number(std::string_view text);

}  // namespace tls_offload

#endif
