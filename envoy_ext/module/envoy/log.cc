#include "envoy_ext/module/envoy/log.h"

#include <string>

#include "envoy_ext/module/envoy/escaped.h"

namespace tls_offload {

bool log_enabled(abi::LogLevel level) {
  return envoy_dynamic_module_callback_log_enabled(level);
}

void log(abi::LogLevel level, std::string_view message) {
  if (!log_enabled(level)) return;
  constexpr size_t kLineMax = 4096;  // a refused configuration's value may be long
  std::string line = "tls_offload: " + escaped(message, Quotes::Keep, kLineMax);
  envoy_dynamic_module_callback_log(level, {line.data(), line.size()});
}

}  // namespace tls_offload
