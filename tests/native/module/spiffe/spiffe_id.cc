// SPIFFE ids are read strictly.
#include "envoy_ext/module/spiffe/spiffe_id.h"

#include <string>

#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {

using namespace tls_offload;

void spiffe_ids_are_read_strictly() {
  for (const char *good : {"spiffe://a/b", "spiffe://mesh.example/ns/shop/sa/cart", "spiffe://1_a-b.c/A.z_-9/..."}) {
    CHECK(spiffe_id_fault(good).empty());
  }
  for (const char *bad : {"",
                          "spiffe",
                          "spiffe://",
                          "spiffe:///a",
                          "spiffe://a",
                          "spiffe://a/",
                          "spiffe://a//b",
                          "spiffe://a/b/",
                          "spiffe://a/.",
                          "spiffe://a/../b",
                          "spiffe://A/b",
                          "spiffe://a:1/b",
                          "spiffe://u@a/b",
                          "spiffe://a/b?c",
                          "spiffe://a/b#c",
                          "spiffe://a/%41",
                          "spiffe://a/b c",
                          "spiffe://a/b,c",
                          "spiffe://a/b;c",
                          "spiffe://a/b=c",
                          "spiffe://a/b\"c",
                          "spiffe://a/b\nc",
                          "http://a/b",
                          "SPIFFE://a/b",
                          "spiffe://\xc3\xa4/b"}) {
    CHECK(!spiffe_id_fault(bad).empty());
  }
  std::string longest = "spiffe://a/" + std::string(2048 - 11, 'x');
  CHECK(spiffe_id_fault(longest).empty() && !spiffe_id_fault(longest + "x").empty());
  std::string domain(255, 'd');
  CHECK(spiffe_id_fault("spiffe://" + domain + "/x").empty() && !spiffe_id_fault("spiffe://d" + domain + "/x").empty());
  CHECK(!spiffe_id_fault(std::string_view("spiffe://a/b\0c", 14)).empty());
  CHECK(trust_domain_of("spiffe://mesh.example/ns/shop") == "mesh.example");
}

}  // namespace tests
