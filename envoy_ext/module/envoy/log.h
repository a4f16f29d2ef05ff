// Messages to Envoy's log (component "dynamic_modules"), prefixed with the module's name.
#ifndef TLS_OFFLOAD_LOG_H
#define TLS_OFFLOAD_LOG_H

#include <string_view>

#include "envoy_ext/module/envoy/abi.h"

namespace tls_offload {

bool log_enabled(abi::LogLevel level);
// Logs one line, whatever the message contains: it is escaped here.
void log(abi::LogLevel level, std::string_view message);

}  // namespace tls_offload

#endif
