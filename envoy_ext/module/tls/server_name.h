// Server names (SNI) as clients send them, before anybody has been authenticated.
#ifndef TLS_OFFLOAD_SERVER_NAME_H
#define TLS_OFFLOAD_SERVER_NAME_H

#include <string_view>

namespace tls_offload {

// Whether the text has the form of a DNS host name (RFC 1123, 2.1, and underscores, which are in use): labels of 1 to
// 63 letters, digits, '-' and '_', 253 bytes in all, a dot at the end or not. RFC 6066, section 3, allows nothing else.
bool is_host_name(std::string_view text);

}  // namespace tls_offload

#endif
