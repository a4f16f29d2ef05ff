// Which server names of clients are host names.
#include "envoy_ext/module/tls/server_name.h"

#include <string>

#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {

using namespace tls_offload;

void host_names() {
  const std::string label(63, 'a');
  const std::string longest = label + "." + label + "." + label + "." + std::string(61, 'a');
  for (const std::string &good : {std::string("a"), std::string("web.test"), std::string("web.test."),
                                  std::string("_dns.1-a.b"), std::string("127.0.0.1"), longest}) {
    CHECK(is_host_name(good));
  }
  for (const std::string &bad :
       {std::string(), std::string("."), std::string("a..b"), std::string(".a"), std::string("a.."), std::string("a b"),
        std::string("a\nb"), std::string("a\0b", 3), std::string("*.a"), std::string("a:1"), std::string("[::1]"),
        std::string("l\xc3\xa4.test"), std::string("a\"b"), std::string("a;b"), label + "a", longest + "a"}) {
    CHECK(!is_host_name(bad));
  }
}

}  // namespace tests
