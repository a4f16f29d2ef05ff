// Everything this module counts, in Envoy's own stats. Envoy gives metrics to network filters only, so the companion
// filter's configuration defines them, below the metrics_namespace of its module configuration (the renderer sets
// "tls_offload"). docs/reference/metrics.md explains each.
#ifndef TLS_OFFLOAD_STATS_H
#define TLS_OFFLOAD_STATS_H

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "envoy_ext/module/envoy/abi.h"

namespace tls_offload {

enum class Counter : uint8_t {
  Handshakes,
  HandshakesResumed,
  HandshakesFailed,
  HandshakesAborted,
  OperationsOk,
  OperationsSoftware,
  OperationsIfma8,
  OperationsCancelled,
  OperationsFailedUnavailable,
  OperationsFailedTimeout,
  OperationsFailedRefused,
  OperationsFailedOverloaded,
  OperationsFailedInvalid,
  OperationsFailedInternal,
  IdentityWaits,
  IdentityWaitsFailed,
  PeersRejected,
  // One for each PeerFault.
  PeersRejectedNoCertificate,
  PeersRejectedSpiffeId,
  PeersRejectedUnknownCa,
  PeersRejectedExpired,
  PeersRejectedRevoked,
  PeersRejectedRevocationUnknown,
  PeersRejectedUnsuitable,
  PeersRejectedNotAccepted,
  PeersRejectedOther,
  // Counters of the key client, shared by all listeners and clusters that use the same daemon.
  OperationsRetried,
  Connections,
  Reconnects,
  ConnectionFailures,
  IdentityUpdates,
  IdentitiesRefused,
  RevocationUpdates,
  RevocationFailures,
  UpstreamHandshakes,
  UpstreamHandshakesResumed,
  UpstreamHandshakesFailed,
  UpstreamHandshakesAborted,
  UpstreamOperationsOk,
  UpstreamOperationsFailed,
  UpstreamPeersRejected,
  // One for each PeerFault.
  UpstreamPeersRejectedNoCertificate,
  UpstreamPeersRejectedSpiffeId,
  UpstreamPeersRejectedUnknownCa,
  UpstreamPeersRejectedExpired,
  UpstreamPeersRejectedRevoked,
  UpstreamPeersRejectedRevocationUnknown,
  UpstreamPeersRejectedUnsuitable,
  UpstreamPeersRejectedNotAccepted,
  UpstreamPeersRejectedOther,
  Count,
};

enum class Gauge : uint8_t { Connected, Count };

enum class Histogram : uint8_t { OperationUs, DaemonQueueUs, DaemonRunUs, BatchSize, HandshakeUs, Count };

// The metrics of one companion-filter configuration.
class MetricSet {
 public:
  // Called on the main thread, while the configuration is made. False when Envoy rejects a metric definition.
  bool define(abi::FilterConfig config);
  // Envoy is about to free its configuration; it is not used afterwards.
  void detach();

  void add(Counter counter, uint64_t amount = 1);       // any thread
  void set(Gauge gauge, uint64_t value);                // any thread
  void add(abi::Filter filter, Counter counter) const;  // its worker
  void record(abi::Filter filter, Histogram histogram, uint64_t value) const;

 private:
  std::mutex mutex_;
  abi::FilterConfig config_ = nullptr;
  std::array<size_t, static_cast<size_t>(Counter::Count)> counters_{};
  std::array<size_t, static_cast<size_t>(Gauge::Count)> gauges_{};
  std::array<size_t, static_cast<size_t>(Histogram::Count)> histograms_{};
};

// The counts of a key client. Envoy merges metrics of the same name, so each count goes to only one of the attached
// sets; until a set is attached, counts are kept here.
class ClientStats {
 public:
  void attach(std::shared_ptr<MetricSet> set);
  void detach(const std::shared_ptr<MetricSet> &set);
  void add(Counter counter, uint64_t amount = 1);
  void set_connected(bool connected);

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<MetricSet>> sets_;
  std::array<uint64_t, static_cast<size_t>(Counter::Count)> unpublished_{};
  bool connected_ = false;
};

}  // namespace tls_offload

#endif
