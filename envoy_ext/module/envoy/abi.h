// The part of Envoy's dynamic-module ABI that this module uses, declared by us for Envoy 1.40 (ABI "v0.2.0").
//
// Envoy looks the hooks up by name in our shared object, and exports the callbacks from its own executable; nothing is
// linked. No compiler can detect a wrong declaration here: envoy_abi.cc compares the callbacks that the running Envoy
// exports with those of the tested release before anything is called.
#ifndef TLS_OFFLOAD_ABI_H
#define TLS_OFFLOAD_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

namespace tls_offload::abi {

// A view of Envoy's memory in the arguments of hooks, and of our memory in the arguments of callbacks.
struct Buffer {
  const char *data;
  size_t size;
};

enum class Io : int { Ok = 0, Again = 1, Error = 2 };  // Ok with 0 bytes read is the end of the stream
enum class Action : int { KeepOpen = 0, Close = 1 };
enum class Event : int { RemoteClose = 0, LocalClose = 1, Connected = 2, ConnectedZeroRtt = 3 };
enum class FilterStatus : int { Continue = 0, StopIteration = 1 };
enum class MetricsResult : int { Success = 0, NotFound = 1, InvalidLabels = 2, Frozen = 3 };
enum class LogLevel : int { Trace = 0, Debug = 1, Info = 2, Warn = 3, Error = 4, Critical = 5, Off = 6 };

struct IoResult {
  Action action;
  uint64_t bytes;
  bool end_stream_read;
};

// Envoy's own objects, opaque here.
using FactoryConfig = void *;
using Socket = void *;
using FilterConfig = void *;
using Filter = void *;
using Scheduler = void *;

}  // namespace tls_offload::abi

#define TLS_OFFLOAD_HOOK extern "C" __attribute__((visibility("default")))

extern "C" {
using tls_offload_abi_buffer = tls_offload::abi::Buffer;

// The process.
void envoy_dynamic_module_callback_log(tls_offload::abi::LogLevel level, tls_offload_abi_buffer message);
bool envoy_dynamic_module_callback_log_enabled(tls_offload::abi::LogLevel level);
bool envoy_dynamic_module_callback_is_validation_mode();  // main thread only

// The transport socket; all on the connection's worker thread.
tls_offload::abi::Io envoy_dynamic_module_callback_transport_socket_io_read(tls_offload::abi::Socket socket, char *into,
                                                                            size_t room, size_t *got);
tls_offload::abi::Io envoy_dynamic_module_callback_transport_socket_io_write(tls_offload::abi::Socket socket,
                                                                             const char *from, size_t size,
                                                                             size_t *put);
int envoy_dynamic_module_callback_transport_socket_get_fd(tls_offload::abi::Socket socket);
void envoy_dynamic_module_callback_transport_socket_read_buffer_add(tls_offload::abi::Socket socket, const char *data,
                                                                    size_t size);
void envoy_dynamic_module_callback_transport_socket_write_buffer_drain(tls_offload::abi::Socket socket, size_t size);
void envoy_dynamic_module_callback_transport_socket_write_buffer_get_slices(tls_offload::abi::Socket socket,
                                                                            tls_offload_abi_buffer *slices,
                                                                            size_t *count);
size_t envoy_dynamic_module_callback_transport_socket_write_buffer_length(tls_offload::abi::Socket socket);
void envoy_dynamic_module_callback_transport_socket_raise_event(tls_offload::abi::Socket socket,
                                                                tls_offload::abi::Event event);
bool envoy_dynamic_module_callback_transport_socket_should_drain_read_buffer(tls_offload::abi::Socket socket);
void envoy_dynamic_module_callback_transport_socket_set_is_readable(tls_offload::abi::Socket socket);
void envoy_dynamic_module_callback_transport_socket_set_is_writable(tls_offload::abi::Socket socket);
bool envoy_dynamic_module_callback_transport_socket_get_connection_id(tls_offload::abi::Socket socket, uint64_t *id);

// The network filter; on the connection's worker thread, except scheduler_commit, which any thread may call.
uint64_t envoy_dynamic_module_callback_network_filter_get_connection_id(tls_offload::abi::Filter filter);
tls_offload::abi::Scheduler envoy_dynamic_module_callback_network_filter_scheduler_new(tls_offload::abi::Filter filter);
void envoy_dynamic_module_callback_network_filter_scheduler_commit(tls_offload::abi::Scheduler scheduler,
                                                                   uint64_t event_id);
void envoy_dynamic_module_callback_network_filter_scheduler_delete(tls_offload::abi::Scheduler scheduler);
bool envoy_dynamic_module_callback_network_set_filter_state_bytes(tls_offload::abi::Filter filter,
                                                                  tls_offload_abi_buffer key,
                                                                  tls_offload_abi_buffer value);

// Metrics: defined while the filter's config is made (main thread). Counters and gauges are atomic in Envoy and may be
// changed from any thread while the config lives; histograms belong to Envoy's threads.
tls_offload::abi::MetricsResult envoy_dynamic_module_callback_network_filter_config_define_counter(
    tls_offload::abi::FilterConfig config, tls_offload_abi_buffer name, size_t *id);
tls_offload::abi::MetricsResult envoy_dynamic_module_callback_network_filter_config_define_gauge(
    tls_offload::abi::FilterConfig config, tls_offload_abi_buffer name, size_t *id);
tls_offload::abi::MetricsResult envoy_dynamic_module_callback_network_filter_config_define_histogram(
    tls_offload::abi::FilterConfig config, tls_offload_abi_buffer name, size_t *id);
tls_offload::abi::MetricsResult envoy_dynamic_module_callback_network_filter_config_increment_counter(
    tls_offload::abi::FilterConfig config, size_t id, uint64_t value);
tls_offload::abi::MetricsResult envoy_dynamic_module_callback_network_filter_config_set_gauge(
    tls_offload::abi::FilterConfig config, size_t id, uint64_t value);
tls_offload::abi::MetricsResult envoy_dynamic_module_callback_network_filter_increment_counter(
    tls_offload::abi::Filter filter, size_t id, uint64_t value);
tls_offload::abi::MetricsResult envoy_dynamic_module_callback_network_filter_record_histogram_value(
    tls_offload::abi::Filter filter, size_t id, uint64_t value);
}

#endif
