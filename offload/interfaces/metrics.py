"""Prometheus metrics, read from the data plane at each scrape; the only module that knows their names.

The table in docs/reference/metrics.md lists every one of them.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from offload import __version__, _dataplane
from offload.backends import BACKENDS, LANES
from offload.identities.in_force import Plan
from offload.identities.uses import IdentityUses
from offload.interfaces.audit import AuditLog
from offload.interfaces.daemon_view import Observed
from offload.interfaces.scrape_exchange import Page, Scrape
from offload.interfaces.scrape_server import ScrapeServer
from offload.issuing.generator import IssuanceStatus
from offload.mesh.membership import Membership
from offload.reporting.folded_log import FoldedLog

FRESH_SECONDS = 0.25  # concurrent scrapers share one rendering; rates are taken over much longer times
PAGES_MAX = 8  # plain or OpenMetrics, each also compressed, and the versions of them that peers may name
COMPRESSION = 1  # enough: text of this kind shrinks to a tenth


class MetricsServer(ScrapeServer):
    """Serves /metrics over HTTP from construction until `stop`. SocketError if the address is unavailable."""

    def __init__(self, daemon: Observed, host: str, port: int, folded: FoldedLog) -> None:
        registry = CollectorRegistry()
        registry.register(DaemonCollector(daemon))
        registry.register(_EndedCollector(self))
        ProcessCollector(registry=registry)
        super().__init__(Pages(registry).page, host, port, folded)


class Pages:
    """The responses to scrapers, cached for moments. For one thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._pages: dict[tuple[str, bool], tuple[float, Page]] = {}

    def page(self, scrape: Scrape) -> Page:
        try:
            # The version comes from the peer and goes into a header, which must be ASCII.
            encode, content_type = choose_encoder(scrape.accept if scrape.accept.isascii() else "")
        except (TypeError, ValueError):  # the version is not a number
            encode, content_type = choose_encoder("")
        compressed = gzip_accepted(scrape.accept_encoding)
        now = time.monotonic()
        made, page = self._pages.get((content_type, compressed), (-FRESH_SECONDS, None))
        if page is None or now - made >= FRESH_SECONDS:
            body = encode(self._registry)
            page = (
                Page(gzip.compress(body, COMPRESSION), content_type, "gzip") if compressed else Page(body, content_type)
            )
            if len(self._pages) >= PAGES_MAX:
                self._pages.clear()
            self._pages[content_type, compressed] = (now, page)
        return page


class _EndedCollector(Collector):
    def __init__(self, server: ScrapeServer) -> None:
        self._server = server

    def describe(self) -> Iterable[Metric]:
        return []  # the server does not serve yet

    def collect(self) -> Iterator[Metric]:
        ended = CounterMetricFamily(
            "offload_metrics_connections_ended", "Connections of scrapers closed by the daemon.", labels=["reason"]
        )
        for reason, count in self._server.ended.items():
            ended.add_metric([reason], count)
        yield ended


class DaemonCollector(Collector):
    def __init__(self, daemon: Observed) -> None:
        self._daemon = daemon

    def describe(self) -> Iterable[Metric]:
        return []  # the daemon is not queried at registration

    def collect(self) -> Iterator[Metric]:
        statistics = self._daemon.statistics()
        yield InfoMetricFamily("offload_build", "Version of the daemon.", {"version": __version__})
        yield from _backend(statistics)
        yield from _operations(statistics["classes"])
        yield from _batches(statistics["classes"])
        yield from _calibration(statistics["classes"])
        yield from _connections(statistics)
        yield from _expiry(self._daemon.plan)
        yield from _identity_uses(self._daemon.identity_uses())
        yield from _audit(self._daemon.audit)
        yield from _issuance(self._daemon.generated.status())
        yield from _mesh(self._daemon.membership)
        started = GaugeMetricFamily("offload_start_time_seconds", "When the daemon started, seconds since 1970.")
        started.add_metric([], self._daemon.started_at)
        yield started


def _backend(statistics: _dataplane.Statistics) -> Iterator[Metric]:
    backend = GaugeMetricFamily("offload_backend_in_use", "1 for the backend in use.", labels=["backend"])
    for name in BACKENDS:
        backend.add_metric([name], float(statistics["backend"] == name))
    yield backend
    memory = statistics["secret_memory"]
    locked = GaugeMetricFamily("offload_secret_memory_bytes", "Secret memory for keys.", labels=["kind", "state"])
    for state in ("used", "reserved"):
        locked.add_metric([str(memory["kind"]), state], float(memory[state]))
    yield locked


def _operations(classes: Sequence[_dataplane.ClassStatistics]) -> Iterator[Metric]:
    operations = CounterMetricFamily(
        "offload_operations", "Answered operations.", labels=["algorithm", "status", "backend"]
    )
    waiting = HistogramMetricFamily(
        "offload_queue_seconds", "Time from an operation's arrival to its start.", labels=["algorithm"]
    )
    running = HistogramMetricFamily("offload_batch_run_seconds", "Execution time of a batch.", labels=["algorithm"])
    faults = CounterMetricFamily(
        "offload_lane_faults", "Results that failed their check and were recomputed.", labels=["algorithm"]
    )
    queued = GaugeMetricFamily("offload_queue_depth", "Operations now waiting.", labels=["algorithm"])
    for one in classes:
        algorithm = one["algorithm"]
        for (status, backend), count in one["operations"].items():
            operations.add_metric([algorithm, status, backend], count)
        _histogram(waiting, algorithm, _dataplane.QUEUE_SECONDS_BOUNDS, one["queue_seconds"], one["queue_seconds_sum"])
        _histogram(running, algorithm, _dataplane.RUN_SECONDS_BOUNDS, one["run_seconds"], one["run_seconds_sum"])
        faults.add_metric([algorithm], one["faults"])
        queued.add_metric([algorithm], one["queued"])
    yield from (operations, waiting, running, faults, queued)


def _histogram(
    family: HistogramMetricFamily, algorithm: str, bounds: Sequence[float], counts: Sequence[int], total: float
) -> None:
    buckets, below = [], 0
    for bound, count in zip([*(f"{b:g}" for b in bounds), "+Inf"], counts, strict=True):
        below += count
        buckets.append((bound, below))
    family.add_metric([algorithm], buckets, total)


def _batches(classes: Sequence[_dataplane.ClassStatistics]) -> Iterator[Metric]:
    sizes = HistogramMetricFamily(
        "offload_batch_size",
        "Operations per batch, by the reason for starting it.",
        labels=["algorithm", "backend", "reason"],
    )
    for one in classes:
        by_reason: dict[tuple[str, str], dict[int, int]] = {}
        for (backend, reason, size), count in one["batches"].items():
            by_reason.setdefault((backend, reason), {})[size] = count
        for (backend, reason), counts in sorted(by_reason.items()):
            sizes.add_metric([one["algorithm"], backend, reason], *_size_buckets(counts))
    yield sizes


def _size_buckets(counts: Mapping[int, int]) -> tuple[list[tuple[str, float]], float]:
    below, buckets = 0, []
    for size in range(1, LANES + 1):
        below += counts.get(size, 0)
        buckets.append((f"{size}.0", float(below)))
    buckets.append(("+Inf", float(sum(counts.values()))))
    return buckets, float(sum(size * count for size, count in counts.items()))


def _calibration(classes: Sequence[_dataplane.ClassStatistics]) -> Iterator[Metric]:
    crossover = GaugeMetricFamily(
        "offload_crossover_batch_size",
        "Smallest batch that runs on the vector backend; 9: none does.",
        labels=["algorithm"],
    )
    times = GaugeMetricFamily(
        "offload_calibrated_batch_seconds",
        "Execution time of a batch of this size, measured at start.",
        labels=["algorithm", "backend", "size"],
    )
    for one in classes:
        crossover.add_metric([one["algorithm"]], one["crossover"])
        for backend, microseconds in one["backend_us"].items():
            for size, value in enumerate(microseconds, 1):
                times.add_metric([one["algorithm"], backend, str(size)], value / 1e6)
    yield from (crossover, times)


def _connections(statistics: _dataplane.Statistics) -> Iterator[Metric]:
    for name, text, value in (
        ("offload_connections", "Callers now connected.", statistics["connections"]),
        ("offload_streams", "Open calls.", statistics["streams"]),
        ("offload_identity_watchers", "Identities now watched by clients.", statistics["watchers"]),
        ("offload_operations_queued", "Operations now waiting, over all algorithms.", statistics["queued"]),
        ("offload_draining", "1 while the daemon drains.", statistics["draining"]),
    ):
        gauge = GaugeMetricFamily(name, text)
        gauge.add_metric([], float(value))
        yield gauge
    accepted = CounterMetricFamily("offload_connections_accepted", "Connections since the start.")
    accepted.add_metric([], statistics["connections_total"])
    refusals = CounterMetricFamily("offload_refusals", "Refused callers and operations.", labels=["reason"])
    for reason, count in statistics["refusals"].items():
        refusals.add_metric([reason], count)
    yield from (accepted, refusals)


def _expiry(plan: Plan) -> Iterator[Metric]:
    expiry = GaugeMetricFamily(
        "offload_certificate_expiry_seconds",
        "End of validity, seconds since 1970; chain: of the certificate that expires first.",
        labels=["identity", "key_id", "algorithm", "part"],
    )
    kept = GaugeMetricFamily(
        "offload_key_kept", "1 while the files of a key in force are unusable.", labels=["identity", "key_id"]
    )
    loaded = GaugeMetricFamily("offload_keys", "Keys in force.", labels=["algorithm"])
    counts: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    for identity in plan.identities.values():
        for pair in identity.pairs:
            key_id, algorithm = pair.key.key_id.hex(), pair.key.algorithm
            if (identity.name, key_id) in seen:
                continue  # several certificates for one key: the first is the one that lasts longest
            seen.add((identity.name, key_id))
            counts[algorithm] = counts.get(algorithm, 0) + 1
            expiry.add_metric([identity.name, key_id, algorithm, "leaf"], pair.chain.not_after)
            expiry.add_metric([identity.name, key_id, algorithm, "chain"], pair.chain.chain_not_after)
            kept.add_metric([identity.name, key_id], float(pair.kept))
    for algorithm, count in sorted(counts.items()):
        loaded.add_metric([algorithm], count)
    problems = GaugeMetricFamily("offload_key_files_refused", "Files now rejected.")
    problems.add_metric([], len(plan.problems))
    now = GaugeMetricFamily("offload_time_seconds", "The daemon's clock, for comparison with the expiry.")
    now.add_metric([], time.time())
    yield from (expiry, kept, loaded, problems, now)


def _issuance(status: IssuanceStatus) -> Iterator[Metric]:
    results = CounterMetricFamily(
        "offload_certificate_requests", "Certificates requested for keys generated here.", labels=["issuer", "result"]
    )
    for (issuer, result), count in sorted(status.results.items()):
        results.add_metric([issuer, result], count)
    renewal = GaugeMetricFamily(
        "offload_certificate_renewal_seconds",
        "Time of the next certificate request of a generated identity, seconds since 1970.",
        labels=["identity"],
    )
    for identity, due in sorted(status.next_renewal.items()):
        renewal.add_metric([identity], due)
    yield from (results, renewal)


def _mesh(membership: Membership | None) -> Iterator[Metric]:
    """Has no samples if there is no control plane."""
    connected = GaugeMetricFamily("offload_mesh_connected", "1 while a stream to the control plane is open.")
    attempts = CounterMetricFamily("offload_mesh_connections", "Attempts to open a stream to the control plane.")
    problems = GaugeMetricFamily("offload_mesh_problems", "Requests of the control plane that this node cannot fulfil.")
    if membership is not None:
        status = membership.status()
        connected.add_metric([], float(status.is_connected))
        attempts.add_metric([], status.attempts)
        problems.add_metric([], len(membership.in_force.problems))
    yield from (connected, attempts, problems)


def _identity_uses(uses: IdentityUses) -> Iterator[Metric]:
    operations = CounterMetricFamily(
        "offload_identity_operations",
        "Executed operations with the keys of an identity.",
        labels=["identity", "status", "backend"],
    )
    for name, use in sorted(uses.current().items()):
        for (status, backend), count in use.operations.items():
            operations.add_metric([name, status, backend], count)
    unlisted = CounterMetricFamily("offload_identity_operations_unlisted", "Operations not attributed to an identity.")
    unlisted.add_metric([], uses.unlisted)
    yield from (operations, unlisted)


def _audit(audit: AuditLog | None) -> Iterator[Metric]:
    written = CounterMetricFamily("offload_audit_lines", "Lines written to the audit log.")
    lost = CounterMetricFamily("offload_audit_events_lost", "Events lost by the audit log.")
    if audit is not None:
        written.add_metric([], audit.written)
        lost.add_metric([], audit.lost)
    yield from (written, lost)
