#include "benchmarks/native/tlsload/report.h"

#include "benchmarks/native/json.h"

namespace load {
namespace {

void connections(Json &json, const Results &results, double seconds) {
  json.field("handshakes", results.handshakes);
  json.field("resumed", results.resumed);
  json.field("responses", results.responses);
  json.field("aborted", results.aborted);
  json.field("sessions_primed", results.primed);
  json.field("left_open_by_server", results.left_open);
  json.field("failures", results.failures);
  json.key("failures_by_reason").begin_object();
  for (const auto &[reason, times] : results.reasons) json.field(reason, times);
  json.end_object();
  json.field("handshakes_per_s", seconds > 0 ? double(results.handshakes) / seconds : 0);
}

void negotiated(Json &json, const Results &results) {
  json.key("negotiated").begin_object();
  json.field("version", results.version);
  json.field("cipher", results.cipher);
  json.field("group", results.group);
  json.field("alpn", results.alpn);
  json.end_object();
}

}  // namespace

std::string report(const Options &options, const Results &results, Nanoseconds elapsed, Nanoseconds cpu) {
  double seconds = double(elapsed) / 1e9;
  Json json;
  json.begin_object();
  json.field("tool", "tlsload");
  json.field("loop", options.rate > 0 ? "open" : "closed");
  json.field("rate", options.rate);
  json.field("concurrency", options.concurrency);
  json.field("threads", options.threads);
  json.field("elapsed_s", seconds);
  connections(json, results, seconds);
  json.latencies("handshake_ms", results.handshake, options.histogram);
  if (!options.get.empty()) json.latencies("response_ms", results.response, options.histogram);
  if (options.rate > 0) json.latencies("start_lag_ms", results.start_lag, options.histogram);
  json.field("client_cpu_s", double(cpu) / 1e9);
  json.field("client_cpu_share", seconds > 0 ? double(cpu) / double(elapsed) / options.threads : 0);
  json.field("client_cpu_us_per_handshake", results.handshakes ? double(cpu) / 1e3 / double(results.handshakes) : 0);
  negotiated(json, results);
  json.key("targets").begin_array();
  for (size_t i = 0; i < options.targets.size(); i++) {
    json.begin_object();
    json.field("address", options.targets[i].name);
    json.field("handshakes", results.targets[i].handshakes);
    json.field("failures", results.targets[i].failures);
    json.end_object();
  }
  json.end_array();
  json.end_object();
  return json.text();
}

}  // namespace load
