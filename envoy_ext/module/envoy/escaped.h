// Makes untrusted text safe for a log line, an access log, or a header.
#ifndef TLS_OFFLOAD_ESCAPED_H
#define TLS_OFFLOAD_ESCAPED_H

#include <cstddef>
#include <string>
#include <string_view>

namespace tls_offload {

// Escape also replaces characters that end a quotation: for a peer's text inside a text of ours. Keep is for the whole
// of our own texts on output; what was escaped before stays as it is.
enum class Quotes { Escape, Keep };

// Keeps printable ASCII, and writes every other byte as \xNN; so no text can begin a second line, move a terminal's
// cursor or change the direction of writing. Text longer than `longest` bytes is truncated and ends with "...".
//
// docs/design/untrusted-text.md lists every place where this is called.
std::string escaped(std::string_view text, Quotes quotes = Quotes::Escape, size_t longest = 1024);

}  // namespace tls_offload

#endif
