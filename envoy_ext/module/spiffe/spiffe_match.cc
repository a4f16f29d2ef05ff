#include "envoy_ext/module/spiffe/spiffe_match.h"

#include <algorithm>

namespace tls_offload {

bool SpiffeMatch::matches(std::string_view id) const {
  if (kind == Kind::Exact) return id == value;
  if (id.substr(0, value.size()) != value) return false;
  return id.size() == value.size() || value.back() == '/' || id[value.size()] == '/';
}

bool any_matches(const std::vector<SpiffeMatch> &matches, std::string_view id) {
  return std::any_of(matches.begin(), matches.end(), [&](const SpiffeMatch &one) { return one.matches(id); });
}

}  // namespace tls_offload
