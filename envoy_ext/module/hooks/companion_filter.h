// The companion network filter, for what Envoy offers to filters and not to transport sockets. It wakes the worker when
// an answer comes, counts, and publishes the facts of the handshake as filter state. It never touches the data.
#ifndef TLS_OFFLOAD_COMPANION_FILTER_H
#define TLS_OFFLOAD_COMPANION_FILTER_H

#include <memory>
#include <string>
#include <vector>

#include "envoy_ext/module/client/key_client.h"
#include "envoy_ext/module/config/config.h"
#include "envoy_ext/module/config/filter_state.h"
#include "envoy_ext/module/envoy/abi.h"
#include "envoy_ext/module/envoy/stats.h"
#include "envoy_ext/module/envoy/waker.h"

namespace tls_offload {

class TransportSocket;

class CompanionFilterConfig {
 public:
  // Called on the main thread. Null with the reason in `error`.
  static std::unique_ptr<CompanionFilterConfig> create(abi::FilterConfig envoy, const FilterSettings &settings,
                                                       bool connect, std::string &error);
  ~CompanionFilterConfig();

  const MetricSet &metrics() const { return *metrics_; }
  const std::vector<Fact> &facts() const { return facts_; }

 private:
  std::shared_ptr<MetricSet> metrics_ = std::make_shared<MetricSet>();
  std::shared_ptr<KeyClient> client_;
  std::vector<Fact> facts_;
};

class CompanionFilter {
 public:
  CompanionFilter(const CompanionFilterConfig &config, abi::Filter envoy);
  ~CompanionFilter();

  // Hooks.
  void new_connection();
  void event(abi::Event event);
  void scheduled();

  // The connection closes: there are no more wake-ups, and the socket is gone. Must be called on the worker while Envoy
  // still holds the filter. `commit` takes a reference to the filter on the key client's thread; if the worker released
  // the filter meanwhile, that thread would destroy it, here and in Envoy, inside `wake`. After `release` no commit is
  // in progress.
  void release();

  void count(Counter counter) const { config_.metrics().add(envoy_, counter); }
  void record(Histogram histogram, uint64_t value) const { config_.metrics().record(envoy_, histogram, value); }

 private:
  const CompanionFilterConfig &config_;
  const abi::Filter envoy_;
  abi::Scheduler scheduler_;  // null when released
  std::shared_ptr<Waker> waker_;
  TransportSocket *socket_ = nullptr;
};

}  // namespace tls_offload

#endif
