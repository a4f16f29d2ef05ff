#include "envoy_ext/module/envoy/escaped.h"

namespace tls_offload {
namespace {

bool stays(char c, Quotes quotes) {
  if (c < 0x20 || c > 0x7e) return false;  // including bytes above 0x7f, whether or not char is signed
  return quotes == Quotes::Keep || (c != '"' && c != '\'' && c != '\\');
}

}  // namespace

std::string escaped(std::string_view text, Quotes quotes, size_t longest) {
  static const char digits[] = "0123456789abcdef";
  std::string result;
  result.reserve(text.size() < longest ? text.size() : longest);
  for (char c : text.substr(0, longest)) {
    if (stays(c, quotes)) {
      result += c;
      continue;
    }
    auto byte = static_cast<unsigned char>(c);
    result += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
  }
  if (text.size() > longest) result += "...";
  return result;
}

}  // namespace tls_offload
