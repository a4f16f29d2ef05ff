// The hooks that Envoy calls: they only turn Envoy's pointers into our objects.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "envoy_ext/module/config/config.h"
#include "envoy_ext/module/envoy/abi.h"
#include "envoy_ext/module/envoy/envoy_abi.h"
#include "envoy_ext/module/envoy/log.h"
#include "envoy_ext/module/hooks/companion_filter.h"
#include "envoy_ext/module/hooks/transport_socket.h"
#include "envoy_ext/module/tls/key_exchange.h"
#include "envoy_ext/module/tls/tls_context.h"

namespace tls_offload {
namespace {

constexpr std::string_view kName = "tls_offload";

std::string_view view(abi::Buffer buffer) {
  return {buffer.data, buffer.size};
}

// Logs why a configuration is rejected; Envoy itself only reports that it is.
const void *refuse(const char *what, const std::string &reason) {
  log(abi::LogLevel::Error, std::string(what) + " configuration rejected: " + reason);
  return nullptr;
}

// Envoy's log function may itself be among the missing symbols.
void refuse_to_load(const std::vector<std::string> &missing) {
  std::string reason = missing_reason(missing);
  bool can_log = std::none_of(missing.begin(), missing.end(), [](const std::string &name) {
    return name == "envoy_dynamic_module_callback_log" || name == "envoy_dynamic_module_callback_log_enabled";
  });
  if (can_log) return log(abi::LogLevel::Critical, reason);
  fprintf(stderr, "tls_offload: %s\n", reason.c_str());
}

bool connects() {
  return !envoy_dynamic_module_callback_is_validation_mode();
}

TransportSocket &socket_of(const void *ours) {
  return *static_cast<TransportSocket *>(const_cast<void *>(ours));
}
CompanionFilter &filter_of(const void *ours) {
  return *static_cast<CompanionFilter *>(const_cast<void *>(ours));
}

}  // namespace
}  // namespace tls_offload

using namespace tls_offload;

TLS_OFFLOAD_HOOK const char *envoy_dynamic_module_on_program_init() {
  std::string reason;
  if (auto missing = missing_symbols(); !missing.empty()) {
    refuse_to_load(missing);
    return nullptr;
  }
  bool tested = envoy_is_tested(reason);
  if (!reason.empty()) log(tested ? abi::LogLevel::Warn : abi::LogLevel::Critical, reason);
  if (tested) log(abi::LogLevel::Info, std::string("tls_offload: X25519 by ") + key_exchange_backend());
  return tested ? kAbiVersion : nullptr;
}

// ---- transport socket ----

TLS_OFFLOAD_HOOK const void *envoy_dynamic_module_on_transport_socket_factory_config_new(abi::FactoryConfig,
                                                                                         abi::Buffer name,
                                                                                         abi::Buffer config,
                                                                                         bool is_upstream) {
  constexpr const char *what = "transport socket";
  if (view(name) != kName) return refuse(what, "transport_socket_name must be 'tls_offload'");
  std::string error;
  auto parsed = parse_socket_config(view(config), is_upstream ? Direction::Upstream : Direction::Downstream, error);
  if (!parsed) return refuse(what, error);
  auto context = TlsContext::create(std::move(*parsed), connects(), error);
  return context != nullptr ? context.release() : refuse(what, error);
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_transport_socket_factory_config_destroy(const void *config) {
  delete static_cast<const TlsContext *>(config);
}

TLS_OFFLOAD_HOOK const void *envoy_dynamic_module_on_transport_socket_new(const void *config, abi::Socket envoy) {
  return new TransportSocket(*static_cast<const TlsContext *>(config), envoy);
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_transport_socket_destroy(const void *socket) {
  delete &socket_of(socket);
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_transport_socket_set_callbacks(abi::Socket, const void *socket) {
  socket_of(socket).set_callbacks();
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_transport_socket_on_connected(abi::Socket, const void *socket) {
  socket_of(socket).on_connected();
}

TLS_OFFLOAD_HOOK abi::IoResult envoy_dynamic_module_on_transport_socket_do_read(abi::Socket, const void *socket) {
  return socket_of(socket).do_read();
}

TLS_OFFLOAD_HOOK abi::IoResult envoy_dynamic_module_on_transport_socket_do_write(abi::Socket, const void *socket,
                                                                                 bool end_stream) {
  return socket_of(socket).do_write(end_stream);
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_transport_socket_close(abi::Socket, const void *socket, abi::Event event,
                                                                     bool abort_reset) {
  socket_of(socket).close(event, abort_reset);
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_transport_socket_get_protocol(abi::Socket, const void *socket,
                                                                            abi::Buffer *out) {
  std::string_view protocol = socket_of(socket).protocol();
  *out = {protocol.data(), protocol.size()};
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_transport_socket_get_failure_reason(abi::Socket, const void *socket,
                                                                                  abi::Buffer *out) {
  std::string_view reason = socket_of(socket).failure_reason();
  *out = {reason.data(), reason.size()};
}

TLS_OFFLOAD_HOOK bool envoy_dynamic_module_on_transport_socket_can_flush_close(abi::Socket, const void *socket) {
  return socket_of(socket).can_flush_close();
}

// Opportunistic TLS (STARTTLS) does not apply to a socket that begins with a handshake.
TLS_OFFLOAD_HOOK bool envoy_dynamic_module_on_transport_socket_start_secure_transport(abi::Socket, const void *) {
  return false;
}

// ---- companion filter ----

TLS_OFFLOAD_HOOK const void *envoy_dynamic_module_on_network_filter_config_new(abi::FilterConfig envoy,
                                                                               abi::Buffer name, abi::Buffer config) {
  constexpr const char *what = "network filter";
  if (view(name) != kName) return refuse(what, "filter_name must be 'tls_offload'");
  std::string error;
  auto settings = parse_filter_settings(view(config), error);
  if (!settings) return refuse(what, error);
  auto made = CompanionFilterConfig::create(envoy, *settings, connects(), error);
  return made != nullptr ? made.release() : refuse(what, error);
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_network_filter_config_destroy(const void *config) {
  delete static_cast<const CompanionFilterConfig *>(config);
}

TLS_OFFLOAD_HOOK const void *envoy_dynamic_module_on_network_filter_new(const void *config, abi::Filter envoy) {
  return new CompanionFilter(*static_cast<const CompanionFilterConfig *>(config), envoy);
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_network_filter_destroy(const void *filter) {
  delete &filter_of(filter);
}

TLS_OFFLOAD_HOOK abi::FilterStatus envoy_dynamic_module_on_network_filter_new_connection(abi::Filter,
                                                                                         const void *filter) {
  filter_of(filter).new_connection();
  return abi::FilterStatus::Continue;
}

TLS_OFFLOAD_HOOK abi::FilterStatus envoy_dynamic_module_on_network_filter_read(abi::Filter, const void *, size_t,
                                                                               bool) {
  return abi::FilterStatus::Continue;
}

TLS_OFFLOAD_HOOK abi::FilterStatus envoy_dynamic_module_on_network_filter_write(abi::Filter, const void *, size_t,
                                                                                bool) {
  return abi::FilterStatus::Continue;
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_network_filter_event(abi::Filter, const void *filter, abi::Event event) {
  filter_of(filter).event(event);
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_network_filter_scheduled(abi::Filter, const void *filter, uint64_t) {
  filter_of(filter).scheduled();
}

TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_network_filter_http_callout_done(abi::Filter, const void *, uint64_t, int,
                                                                               void *, size_t, void *, size_t) {}
TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_network_filter_above_write_buffer_high_watermark(abi::Filter,
                                                                                               const void *) {}
TLS_OFFLOAD_HOOK void envoy_dynamic_module_on_network_filter_below_write_buffer_low_watermark(abi::Filter,
                                                                                              const void *) {}
