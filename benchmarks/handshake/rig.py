"""The contenders as running processes, all at once; only the one under load uses CPU.

Each has the same listeners (a key, and whether client certificates are required); each Envoy has one worker. For mTLS
between two Envoys each also has a caller: plaintext comes in, and each request goes out through a new connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.handshake.plan import KEYS, MODES, Load
from deploy.load import tools, usage
from deploy.node import daemon, envoy
from deploy.node.certificates import Authority, Leaf
from deploy.node.daemon import Counters, Daemon
from deploy.node.envoy import Config, Envoy
from deploy.node.processes import NodeError, Processes
from envoy_ext import render
from envoy_ext.settings import TlsSettings, TlsVersion, UpstreamTlsSettings

DAEMON_BACKENDS = {"ifma": "ifma8", "soft": "software"}  # mode: the daemon's setting
ROUTES = [render.direct_response("ok\n")]
TLS_VERSIONS: tuple[TlsVersion, ...] = ("1.3", "1.2")
GROUPS = ("X25519", "P-256", "P-384")  # the first is used; TLS 1.2 requires the certificate's curve among them


def modes_of_this_host() -> tuple[str, ...]:
    """Without AVX-512 IFMA there are only two modes."""
    return MODES if machine.machine()["avx512_ifma"] else tuple(m for m in MODES if m != "ifma")


@dataclass(frozen=True)
class Slice:
    """One load on one contender, once."""

    load: Mapping[str, Any]  # tlsload's result
    envoy: usage.Usage
    daemon: usage.Usage
    counters: Counters | None  # None: stock has no daemon
    caller: usage.Usage = field(
        default_factory=usage.Usage
    )  # the Envoy in the client's place; of nobody where that is tlsload


@dataclass
class Contender:
    mode: str
    daemon: Daemon | None
    envoys: list[Envoy] = field(default_factory=list)
    caller: Envoy | None = None

    def addresses(self, load: Load) -> list[str]:
        if load.two_envoys:
            if self.caller is None:
                raise NodeError(f"{self.mode}: {load.name} needs Rig.add_callers() first")
            return [self.caller.address(caller_name(load.key, load.tls))]
        return [one.address(listener_name(load.key, load.mtls)) for one in self.envoys[: load.sidecars]]

    def handshakes(self) -> int:
        """Handshakes of the sidecar as a server, by its own count."""
        stats = self.envoys[0].stats("listener." if self.daemon is None else "tls_offload.handshakes")
        return sum(
            n for name, n in stats.items() if name.endswith(".ssl.handshake") or not name.startswith("listener.")
        )

    def memory_kib(self) -> dict[str, int]:
        own = {"envoy": usage.memory_kib(self.envoys[0].pid)}
        return own | ({"daemon": usage.memory_kib(self.daemon.pid)} if self.daemon else {})


def listener_name(key: str, mtls: bool) -> str:
    return f"{key}-mtls" if mtls else key


def caller_name(key: str, tls: str) -> str:
    return f"to-{key}-{tls}"


class Rig:
    """Starts everything at construction; `processes` ends it."""

    def __init__(self, processes: Processes, folder: Path, modes: Sequence[str] = MODES) -> None:
        self._processes = processes
        self.authority = Authority(folder / "ca")
        self.leaves = [self.authority.issue(key, key, folder / "keys") for key in KEYS]
        self.client = self.authority.issue("client", "p256", folder / "client")
        self.callers = {key: self.authority.issue(f"{key}-caller", key, folder / "keys") for key in KEYS}
        self.contenders = {mode: self._contender(mode, folder) for mode in modes}
        self.add_sidecars(1)

    def _contender(self, mode: str, folder: Path) -> Contender:
        if mode == "stock":
            return Contender(mode, None)
        settings = daemon.Settings(backend=DAEMON_BACKENDS[mode])
        leaves = [*self.leaves, *self.callers.values()]
        return Contender(mode, daemon.start(self._processes, f"daemon-{mode}", leaves, folder / mode, settings))

    def add_sidecars(self, count: int) -> None:
        """Adds sidecars until every contender has `count` Envoys."""
        for contender in self.contenders.values():
            for number in range(len(contender.envoys), count):
                name = f"envoy-{contender.mode}-{number}"
                contender.envoys.append(
                    envoy.start(self._processes, name, self._config(contender), module=contender.daemon is not None)
                )

    def add_callers(self) -> None:
        """Adds the second Envoy of every contender, for mTLS between two."""
        for contender in self.contenders.values():
            if contender.caller is None:
                offloaded = contender.daemon is not None
                config = self._caller_config(contender)
                contender.caller = envoy.start(self._processes, f"caller-{contender.mode}", config, module=offloaded)

    def _caller_config(self, contender: Contender) -> Config:
        listeners, clusters = [], []
        for leaf, tls in product(self.leaves, TLS_VERSIONS):
            name = caller_name(leaf.name, tls)
            manager = render.http_connection_manager([render.route_to_cluster(name)], stat_prefix=name)
            listeners.append(render.listener(name, 0, [{"filters": [manager]}], host="127.0.0.1"))
            clusters.append(self._cluster(contender, leaf, tls) | render.http_options(requests_per_connection=1))
        return render.bootstrap(listeners, clusters, admin_port=0)

    def _cluster(self, contender: Contender, leaf: Leaf, tls: TlsVersion) -> Config:
        """mTLS to the contender's first sidecar, as the caller of that key; every connection is a full handshake."""
        name, caller, server_name = caller_name(leaf.name, tls), self.callers[leaf.name], f"{leaf.name}.demo.test"
        port = contender.envoys[0].ports[listener_name(leaf.name, mtls=True)]
        if contender.daemon is None:
            secure = envoy.stock_upstream_tls(caller, self.authority.ca_file, server_name, tls, GROUPS)
            return render.cluster(name, "127.0.0.1", port) | {"transport_socket": secure}
        settings = UpstreamTlsSettings(
            identities=(caller.name,),
            daemon_socket=contender.daemon.socket,
            tls_minimum=tls,
            tls_maximum=tls,
            groups=GROUPS,
            session_tickets=False,
            trusted_ca_file=self.authority.ca_file,
            server_name=server_name,
            peer_dns_names=(server_name,),
        )
        return render.cluster(name, "127.0.0.1", port, tls=settings)

    def _config(self, contender: Contender) -> Config:
        listeners = [self._listener(contender, leaf, mtls) for leaf in self.leaves for mtls in (False, True)]
        return render.bootstrap(listeners, admin_port=0)

    def _listener(self, contender: Contender, leaf: Leaf, mtls: bool) -> Config:
        name = listener_name(leaf.name, mtls)
        ca_file = self.authority.ca_file if mtls else None
        if contender.daemon is None:
            return envoy.https_listener(name, envoy.stock_tls(leaf, ca_file), ROUTES)
        tls = TlsSettings(
            identities=(leaf.name,),
            daemon_socket=contender.daemon.socket,
            alpn=("h2", "http/1.1"),
            client_certificate="required" if mtls else None,
            trusted_ca_file=ca_file,
        )
        return envoy.offloaded_listener(name, tls, ROUTES)

    def run(self, mode: str, load: Load, seconds: float, rate: float | None) -> Slice:
        """Runs one slice. NodeError if a part of the contender ended."""
        contender = self.contenders[mode]
        envoys = [one.pid for one in contender.envoys[: load.sidecars]]
        callers = [contender.caller.pid] if contender.caller and load.two_envoys else []
        daemons = [contender.daemon.pid] if contender.daemon else []
        counters = contender.daemon.counters() if contender.daemon else None
        handshakes = contender.handshakes() if load.two_envoys else 0
        before = [usage.usage_of(pids) for pids in (envoys, daemons, callers)]
        result = tools.tlsload(
            *contender.addresses(load),
            duration=seconds,
            concurrency=load.concurrency,
            rate=rate,
            poisson=rate is not None,
            histogram=True,
            **self._client(load),
        )
        self._processes.check()
        if not result["handshakes"]:
            raise NodeError(f"{mode}: no handshake in {load.name}: {result['failures_by_reason']}")
        after = [usage.usage_of(pids) for pids in (envoys, daemons, callers)]
        span = contender.daemon.counters().since(counters) if contender.daemon and counters else None
        if load.two_envoys and contender.handshakes() - handshakes < result["handshakes"]:
            raise NodeError(f"{mode}: {load.name}: requests shared connections, so they are not handshakes")
        used = [end - start for start, end in zip(before, after, strict=True)]
        return Slice(result, used[0], used[1], span, used[2])

    def _client(self, load: Load) -> Mapping[str, tools.Argument]:
        """The role of tlsload: a TLS client, or plain requests to the Envoy that is one."""
        if load.two_envoys:
            return {"plaintext": True, "get": "/"}
        return {
            "tls": load.tls,
            "groups": ":".join(GROUPS),
            "resume": load.resumed,
            "cert": self.client.certificate_file if load.mtls else None,
            "key": self.client.key_file if load.mtls else None,
        }
