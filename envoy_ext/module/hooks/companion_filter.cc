#include "envoy_ext/module/hooks/companion_filter.h"

#include <algorithm>
#include <utility>

#include "envoy_ext/module/envoy/escaped.h"
#include "envoy_ext/module/hooks/transport_socket.h"

namespace tls_offload {
namespace {

constexpr size_t kFactMax = 8192;  // room for two SPIFFE ids of the largest size and a digest

}  // namespace

std::unique_ptr<CompanionFilterConfig> CompanionFilterConfig::create(abi::FilterConfig envoy,
                                                                     const FilterSettings &settings, bool connect,
                                                                     std::string &error) {
  auto config = std::make_unique<CompanionFilterConfig>();
  if (!config->metrics_->define(envoy)) {
    error = "Envoy rejects a metric definition";
    return nullptr;
  }
  for (size_t i = 0; i < kPublishable.size(); i++) {
    const auto &wanted = settings.publish;
    if (wanted.empty() || std::find(wanted.begin(), wanted.end(), kPublishable[i]) != wanted.end()) {
      config->facts_.push_back(static_cast<Fact>(i));
    }
  }
  if (connect) {
    config->client_ = KeyClient::of(settings.daemon_socket);
    config->client_->stats().attach(config->metrics_);
  }
  return config;
}

CompanionFilterConfig::~CompanionFilterConfig() {
  if (client_ != nullptr) client_->stats().detach(metrics_);
  metrics_->detach();
}

CompanionFilter::CompanionFilter(const CompanionFilterConfig &config, abi::Filter envoy)
    : config_(config),
      envoy_(envoy),
      scheduler_(envoy_dynamic_module_callback_network_filter_scheduler_new(envoy)),
      waker_(std::make_shared<SchedulerWaker>(scheduler_)) {}

CompanionFilter::~CompanionFilter() {
  release();
}

void CompanionFilter::release() {
  if (scheduler_ == nullptr) return;
  if (socket_ != nullptr) socket_->detach();
  socket_ = nullptr;
  waker_->disarm();
  envoy_dynamic_module_callback_network_filter_scheduler_delete(std::exchange(scheduler_, nullptr));
}

void CompanionFilter::new_connection() {
  socket_ = TransportSocket::of_connection(envoy_dynamic_module_callback_network_filter_get_connection_id(envoy_));
  if (socket_ != nullptr) socket_->attach(this, waker_);
}

void CompanionFilter::scheduled() {
  if (socket_ != nullptr) socket_->resume();
}

void CompanionFilter::event(abi::Event event) {
  if (event == abi::Event::RemoteClose || event == abi::Event::LocalClose) return release();
  if (event != abi::Event::Connected || socket_ == nullptr) return;
  for (Fact fact : config_.facts()) {
    // Headers and access logs use the value unchanged.
    std::string value = escaped(socket_->fact(fact), Quotes::Keep, kFactMax);
    if (value.empty()) continue;
    std::string key(kFilterStatePrefix);
    key += kPublishable[static_cast<size_t>(fact)];
    envoy_dynamic_module_callback_network_set_filter_state_bytes(envoy_, {key.data(), key.size()},
                                                                 {value.data(), value.size()});
  }
}

}  // namespace tls_offload
