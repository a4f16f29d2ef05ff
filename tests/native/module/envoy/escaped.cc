// Text of strangers in logs.
#include "envoy_ext/module/envoy/escaped.h"

#include <random>
#include <string>

#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {

using namespace tls_offload;

void text_is_escaped() {
  CHECK(escaped("plain text, with = and ;") == "plain text, with = and ;");
  CHECK(escaped(std::string_view("a\n\0\x1b\x7f\xff", 6)) == "a\\x0a\\x00\\x1b\\x7f\\xff");
  CHECK(escaped("'\"\\") == "\\x27\\x22\\x5c");
  CHECK(escaped("'\"\\\n", Quotes::Keep) == "'\"\\\\x0a");
  CHECK(escaped("abcd", Quotes::Keep, 4) == "abcd" && escaped("abcde", Quotes::Keep, 4) == "abcd...");
  std::mt19937 random(5);
  for (int i = 0; i < 2000; i++) {
    std::string text(random() % 40, 0);
    for (char &c : text) c = static_cast<char>(random());
    std::string once = escaped(text);
    for (char c : once) CHECK(c >= 0x20 && c <= 0x7e && c != '"' && c != '\'');
    CHECK(escaped(once, Quotes::Keep) == once);
  }
}

}  // namespace tests
