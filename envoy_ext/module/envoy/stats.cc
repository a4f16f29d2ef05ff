#include "envoy_ext/module/envoy/stats.h"

#include <string.h>

#include <algorithm>

namespace tls_offload {
namespace {

// The names, in the order of the enums.
constexpr const char *kCounters[] = {
    "handshakes",
    "handshakes_resumed",
    "handshakes_failed",
    "handshakes_aborted",
    "operations_ok",
    "operations_software",
    "operations_ifma8",
    "operations_cancelled",
    "operations_failed_unavailable",
    "operations_failed_timeout",
    "operations_failed_refused",
    "operations_failed_overloaded",
    "operations_failed_invalid",
    "operations_failed_internal",
    "identity_waits",
    "identity_waits_failed",
    "peers_rejected",
    "peers_rejected_no_certificate",
    "peers_rejected_spiffe_id",
    "peers_rejected_unknown_ca",
    "peers_rejected_expired",
    "peers_rejected_revoked",
    "peers_rejected_revocation_unknown",
    "peers_rejected_unsuitable",
    "peers_rejected_not_accepted",
    "peers_rejected_other",
    "operations_retried",
    "connections",
    "reconnects",
    "connection_failures",
    "identity_updates",
    "identities_refused",
    "revocation_updates",
    "revocation_failures",
    "upstream_handshakes",
    "upstream_handshakes_resumed",
    "upstream_handshakes_failed",
    "upstream_handshakes_aborted",
    "upstream_operations_ok",
    "upstream_operations_failed",
    "upstream_peers_rejected",
    "upstream_peers_rejected_no_certificate",
    "upstream_peers_rejected_spiffe_id",
    "upstream_peers_rejected_unknown_ca",
    "upstream_peers_rejected_expired",
    "upstream_peers_rejected_revoked",
    "upstream_peers_rejected_revocation_unknown",
    "upstream_peers_rejected_unsuitable",
    "upstream_peers_rejected_not_accepted",
    "upstream_peers_rejected_other",
};
constexpr const char *kGauges[] = {"connected"};
constexpr const char *kHistograms[] = {"operation_us", "daemon_queue_us", "daemon_run_us", "batch_size",
                                       "handshake_us"};

static_assert(std::size(kCounters) == static_cast<size_t>(Counter::Count));
static_assert(std::size(kGauges) == static_cast<size_t>(Gauge::Count));
static_assert(std::size(kHistograms) == static_cast<size_t>(Histogram::Count));

using Define = abi::MetricsResult (*)(abi::FilterConfig, abi::Buffer, size_t *);

bool define_all(Define define, abi::FilterConfig config, const char *const *names, size_t *ids, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (define(config, {names[i], strlen(names[i])}, &ids[i]) != abi::MetricsResult::Success) return false;
  }
  return true;
}

}  // namespace

bool MetricSet::define(abi::FilterConfig config) {
  config_ = config;
  return define_all(envoy_dynamic_module_callback_network_filter_config_define_counter, config, kCounters,
                    counters_.data(), counters_.size()) &&
         define_all(envoy_dynamic_module_callback_network_filter_config_define_gauge, config, kGauges, gauges_.data(),
                    gauges_.size()) &&
         define_all(envoy_dynamic_module_callback_network_filter_config_define_histogram, config, kHistograms,
                    histograms_.data(), histograms_.size());
}

void MetricSet::detach() {
  std::lock_guard lock(mutex_);
  config_ = nullptr;
}

void MetricSet::add(Counter counter, uint64_t amount) {
  std::lock_guard lock(mutex_);
  if (config_ == nullptr) return;
  envoy_dynamic_module_callback_network_filter_config_increment_counter(
      config_, counters_[static_cast<size_t>(counter)], amount);
}

void MetricSet::set(Gauge gauge, uint64_t value) {
  std::lock_guard lock(mutex_);
  if (config_ == nullptr) return;
  envoy_dynamic_module_callback_network_filter_config_set_gauge(config_, gauges_[static_cast<size_t>(gauge)], value);
}

void MetricSet::add(abi::Filter filter, Counter counter) const {
  envoy_dynamic_module_callback_network_filter_increment_counter(filter, counters_[static_cast<size_t>(counter)], 1);
}

void MetricSet::record(abi::Filter filter, Histogram histogram, uint64_t value) const {
  envoy_dynamic_module_callback_network_filter_record_histogram_value(
      filter, histograms_[static_cast<size_t>(histogram)], value);
}

void ClientStats::attach(std::shared_ptr<MetricSet> set) {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < unpublished_.size(); i++) {
    if (unpublished_[i] > 0) set->add(static_cast<Counter>(i), unpublished_[i]);
  }
  unpublished_.fill(0);
  set->set(Gauge::Connected, connected_);
  sets_.push_back(std::move(set));
}

void ClientStats::detach(const std::shared_ptr<MetricSet> &set) {
  std::lock_guard lock(mutex_);
  sets_.erase(std::remove(sets_.begin(), sets_.end(), set), sets_.end());
}

void ClientStats::add(Counter counter, uint64_t amount) {
  std::lock_guard lock(mutex_);
  if (sets_.empty()) {
    unpublished_[static_cast<size_t>(counter)] += amount;
  } else {
    sets_.front()->add(counter, amount);
  }
}

void ClientStats::set_connected(bool connected) {
  std::lock_guard lock(mutex_);
  connected_ = connected;
  for (const auto &set : sets_) set->set(Gauge::Connected, connected);
}

}  // namespace tls_offload
