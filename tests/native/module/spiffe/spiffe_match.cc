// Matches of SPIFFE ids, from the table that the control plane's tests read too.
#include "envoy_ext/module/spiffe/spiffe_match.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {

using namespace tls_offload;

// The control plane's permissions have the same semantics (tests/control/policies/test_spiffe_matches.py).
void spiffe_ids_match() {
  std::ifstream file(SPIFFE_MATCHES);
  size_t cases = 0;
  for (const auto &one : nlohmann::json::parse(file)) {
    bool prefix = one.contains("prefix");
    SpiffeMatch match{prefix ? SpiffeMatch::Kind::Prefix : SpiffeMatch::Kind::Exact, one[prefix ? "prefix" : "exact"]};
    for (const std::string id : one["fits"]) CHECK(match.matches(id) && ++cases > 0);
    for (const std::string id : one["not"]) CHECK(!match.matches(id) && ++cases > 0);
    CHECK(!match.matches(""));
  }
  CHECK(cases > 20);
  SpiffeMatch exact{SpiffeMatch::Kind::Exact, "spiffe://a/ns/shop"}, domain{SpiffeMatch::Kind::Prefix, "spiffe://a"};
  CHECK(any_matches({exact, domain}, "spiffe://a/x") && !any_matches({}, "spiffe://a/x"));
}

}  // namespace tests
