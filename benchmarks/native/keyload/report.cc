#include "benchmarks/native/keyload/report.h"

#include "benchmarks/native/json.h"
#include "offload/dataplane/wire/wire.h"

namespace load {
namespace {

const char *backend_name(uint32_t backend) {
  switch (backend) {
    case WIRE_BACKEND_SOFTWARE: return "software";
    case WIRE_BACKEND_IFMA8: return "ifma8";
    default: return "unspecified";
  }
}

void batches(Json &json, const Tally &tally) {
  json.key("backends").begin_object();
  for (const auto &[backend, operations] : tally.backends) json.field(backend_name(backend), operations);
  json.end_object();
  double all = 0;
  json.key("operations_by_batch_size").begin_object();
  for (size_t size = 1; size < tally.by_batch_size.size(); size++) {
    json.field(std::to_string(size), tally.by_batch_size[size]);
    all += double(tally.by_batch_size[size]) / double(size);
  }
  json.end_object();
  json.field("batches", all);
  json.field("mean_batch", all > 0 ? double(tally.operations) / all : 0);
}

void costs(Json &json, const Tally &tally, const Spent &spent) {
  double operations = tally.operations ? double(tally.operations) : 1;
  double kernel = tally.kernel_us / operations;
  json.field("queue_us_mean", tally.queue_us / operations);
  json.field("run_us_mean", tally.run_us / operations);
  json.field("kernel_us_per_operation", kernel);
  json.field("client_cpu_us_per_operation", double(spent.own_cpu) / 1e3 / operations);
  if (spent.daemon_cpu < 0) return;
  double daemon = double(spent.daemon_cpu) / 1e3 / operations;
  json.field("daemon_cpu_us_per_operation", daemon);
  json.field("daemon_overhead_us_per_operation", daemon - kernel);
}

}  // namespace

std::string report(const Options &options, const Tally &tally, const Spent &spent) {
  double seconds = double(spent.elapsed) / 1e9;
  Json json;
  json.begin_object();
  json.field("tool", "keyload");
  json.field("loop", options.rate > 0 ? "open" : "closed");
  json.field("call", options.unary ? "unary" : "stream");
  json.field("connections", options.connections);
  json.field("in_flight", options.in_flight);
  json.field("batch", options.batch);
  json.field("rate", options.rate);
  json.field("elapsed_s", seconds);
  json.field("operations", tally.operations);
  json.field("operations_per_s", seconds > 0 ? double(tally.operations) / seconds : 0);
  json.field("checked", options.check);
  json.field("failures", tally.failures);
  json.key("failures_by_reason").begin_object();
  for (const auto &[reason, times] : tally.reasons) json.field(reason, times);
  json.end_object();
  json.latencies("latency_ms", tally.latency, options.histogram);
  batches(json, tally);
  costs(json, tally, spent);
  json.end_object();
  return json.text();
}

}  // namespace load
