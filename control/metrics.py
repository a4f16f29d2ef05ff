"""Every metric of the control plane, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """One instance per process; tests create their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._certificates: set[str] = set()
        self.proxies = Gauge("mesh_connected_proxies", "open xDS streams", ["mesh"], registry=self.registry)
        self.waiting = Gauge(
            "mesh_proxies_waiting_for_node",
            "Connected proxies whose keys stay in Envoy until their node can sign for them",
            ["mesh"],
            registry=self.registry,
        )
        self.steps = Gauge(
            "mesh_waiting_steps",
            "Steps of changes that wait for a proxy or a node: mesh inspect waiting names them",
            ["mesh", "step"],
            registry=self.registry,
        )
        self.offline = Gauge(
            "mesh_offline_proxies",
            "Proxies disconnected for longer than --offline-after, which get no traffic",
            ["mesh"],
            registry=self.registry,
        )
        self.unserved = Gauge(
            "mesh_unserved_proxies",
            "Proxies in mode Offload whose node's daemon cannot sign for them now",
            ["mesh"],
            registry=self.registry,
        )
        self.generation = Gauge(
            "mesh_config_generation", "Generation of the store that was last pushed", registry=self.registry
        )
        self.left_out = Gauge(
            "mesh_resources_left_out",
            "Stored resources that this version cannot read and leaves out",
            ["mesh", "type"],
            registry=self.registry,
        )
        self.quarantined = Gauge(
            "mesh_policies_quarantined",
            "Policies left out for a proxy that rejects them, counted per proxy; closed: all access is denied",
            ["mesh", "type"],
            registry=self.registry,
        )
        self._quarantined: dict[str, set[str]] = {}
        self.build = Histogram(
            "mesh_snapshot_build_seconds",
            "Making one proxy's configuration",
            buckets=_FAST,
            registry=self.registry,
        )
        self.push = Histogram(
            "mesh_push_seconds",
            "From a change of the store until every connected proxy of the mesh has its configuration to send",
            buckets=(*_FAST, 5, 10, 30),
            registry=self.registry,
        )
        self.acks = Counter("mesh_xds_acks", "Answers that proxies took", ["type"], registry=self.registry)
        self.nacks = Counter("mesh_xds_nacks", "Answers that proxies refused", ["type"], registry=self.registry)
        self.refused = Counter("mesh_xds_refused", "Refused streams", ["reason"], registry=self.registry)
        self.store = Histogram(
            "mesh_store_seconds",
            "Operations of the store",
            ["operation"],
            buckets=_FAST,
            registry=self.registry,
        )
        self.store_up = Gauge("mesh_store_up", "1 while the store can be read and written", registry=self.registry)
        self.certificate_expiry = Gauge(
            "mesh_certificate_expiry_timestamp_seconds",
            "End of a certificate: the control plane's own (server), and of the CA of each identity (mesh/identity)",
            ["certificate"],
            registry=self.registry,
        )

        self.connections = Gauge("mesh_connections", "Open connections", ["port"], registry=self.registry)
        self.turned_away = Counter(
            "mesh_connections_turned_away",
            "Connections that were ended or not taken, since there were too many, or no credential came in time",
            ["port", "reason"],
            registry=self.registry,
        )
        self.audit_lost = Counter(
            "mesh_audit_lost", "Lines of the audit log that could not be written", registry=self.registry
        )
        self.failing = Gauge(
            "mesh_ca_failing",
            "1 while the CA of an identity (mesh/identity) cannot sign",
            ["identity"],
            registry=self.registry,
        )
        self._failing: set[str] = set()

    def show_failing(self, identities: Iterable[str]) -> None:
        """The identities whose CA cannot sign now; a former one that is not among them is set to 0."""
        now = set(identities)
        for name in now | self._failing:
            self.failing.labels(name).set(name in now)
        self._failing |= now

    def show_end(self, certificate: str, end: float) -> None:
        """`end`: expiry, in seconds since 1970."""
        self._certificates.add(certificate)
        self.certificate_expiry.labels(certificate).set(end)

    def forget_ends(self, certificate: str) -> None:
        """Drops the expiry of a certificate that no longer exists; for a mesh, all below it."""
        gone = {name for name in self._certificates if name == certificate or name.startswith(certificate + "/")}
        for name in gone:
            self.certificate_expiry.remove(name)
        self._certificates -= gone
        failing = {name for name in self._failing if name == certificate or name.startswith(certificate + "/")}
        for name in failing:
            self.failing.remove(name)
        self._failing -= failing

    def show_quarantined(self, mesh: str, counts: Mapping[str, int]) -> None:
        """`counts`: quarantined policies by type."""
        for type_name in self._quarantined.get(mesh, set()) | counts.keys():
            self.quarantined.labels(mesh, type_name).set(counts.get(type_name, 0))
        self._quarantined[mesh] = set(counts)

    def observe_store(self, operation: str, seconds: float) -> None:
        self.store.labels(operation).observe(seconds)
