// Command line values. An invalid value ends the program with status 2, and with a message that names the option, the
// value, and what is allowed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace load {

[[noreturn]] void usage_error(const std::string &message);

uint64_t whole_number(const char *option, const char *text, uint64_t least, uint64_t most);
double real_number(const char *option, const char *text, double least, double most);
std::vector<std::string> split(const std::string &text, char separator);

}  // namespace load
