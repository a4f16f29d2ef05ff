#include "log.h"

#include <string>

namespace tls_offload {

bool log_enabled(abi::LogLevel level) {
  return envoy_dynamic_module_callback_log_enabled(level);
}

void log(abi::LogLevel level, std::string_view message) {
  if (!log_enabled(level)) return;
  std::string line = "tls_offload: ";
  line += message;
  envoy_dynamic_module_callback_log(level, {line.data(), line.size()});
}

}  // namespace tls_offload
