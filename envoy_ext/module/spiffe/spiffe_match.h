// Which SPIFFE ids are accepted: exact ids, and prefixes that end at the end of a path segment.
#ifndef TLS_OFFLOAD_SPIFFE_MATCH_H
#define TLS_OFFLOAD_SPIFFE_MATCH_H

#include <string>
#include <string_view>
#include <vector>

namespace tls_offload {

struct SpiffeMatch {
  enum class Kind { Exact, Prefix };
  Kind kind;
  std::string value;

  // "spiffe://a/ns/shop" as a prefix accepts itself and all ids below it, not "spiffe://a/ns/shopping"; and
  // "spiffe://a" accepts the whole trust domain a, not "spiffe://a.evil/".
  bool matches(std::string_view id) const;
};

bool any_matches(const std::vector<SpiffeMatch> &matches, std::string_view id);

}  // namespace tls_offload

#endif
