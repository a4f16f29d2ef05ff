#include "benchmarks/native/argument.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace load {

void usage_error(const std::string &message) {
  fprintf(stderr, "%s: %s\nTry '%s --help'.\n", program_invocation_short_name, message.c_str(),
          program_invocation_short_name);
  exit(2);
}

uint64_t whole_number(const char *option, const char *text, uint64_t least, uint64_t most) {
  char *end = nullptr;
  errno = 0;
  unsigned long long number = strtoull(text, &end, 0);
  if (errno || end == text || *end || text[0] == '-' || number < least || number > most)
    usage_error(std::string("--") + option + " is '" + text + "', wanted is a whole number from " +
                std::to_string(least) + " to " + std::to_string(most));
  return number;
}

double real_number(const char *option, const char *text, double least, double most) {
  char *end = nullptr;
  errno = 0;
  double number = strtod(text, &end);
  if (errno || end == text || *end || !std::isfinite(number) || number < least || number > most)
    usage_error(std::string("--") + option + " is '" + text + "', wanted is a number from " + std::to_string(least) +
                " to " + std::to_string(most));
  return number;
}

std::vector<std::string> split(const std::string &text, char separator) {
  std::vector<std::string> parts;
  size_t start = 0;
  while (true) {
    size_t end = text.find(separator, start);
    parts.push_back(text.substr(start, end == std::string::npos ? end : end - start));
    if (end == std::string::npos) return parts;
    start = end + 1;
  }
}

}  // namespace load
