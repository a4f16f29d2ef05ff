#include "envoy_ext/module/tls/server_name.h"

#include <algorithm>

namespace tls_offload {
namespace {

constexpr size_t kNameMax = 253;
constexpr size_t kLabelMax = 63;

bool in_label(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

}  // namespace

bool is_host_name(std::string_view text) {
  if (!text.empty() && text.back() == '.') text.remove_suffix(1);
  if (text.empty() || text.size() > kNameMax) return false;
  for (;;) {
    std::string_view label = text.substr(0, text.find('.'));
    if (label.empty() || label.size() > kLabelMax || !std::all_of(label.begin(), label.end(), in_label)) return false;
    if (label.size() == text.size()) return true;
    text.remove_prefix(label.size() + 1);
  }
}

}  // namespace tls_offload
