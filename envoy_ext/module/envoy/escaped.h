// Text that somebody else wrote, made fit for a log line, an access log, or a header.
#ifndef TLS_OFFLOAD_ESCAPED_H
#define TLS_OFFLOAD_ESCAPED_H

#include <cstddef>
#include <string>
#include <string_view>

namespace tls_offload {

// Escape also replaces what ends a quotation: for a peer's words inside a text of ours. Keep is for whole texts of ours
// on their way out; what was escaped before stays as it is.
enum class Quotes { Escape, Keep };

// Printable ASCII as it is, every other byte as \xNN; so no text makes a second line, moves a terminal's cursor or
// changes the direction of writing. What is longer than `longest` bytes is cut off and ends with "...".
//
// docs/design/untrusted-text.md lists every place where this is called.
std::string escaped(std::string_view text, Quotes quotes = Quotes::Escape, size_t longest = 1024);

}  // namespace tls_offload

#endif
