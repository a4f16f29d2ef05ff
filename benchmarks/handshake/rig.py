"""The contenders as running processes, all at once; only the one under load uses CPU.

Each has the same listeners (a key and whether client certificates are wanted), each Envoy has one worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import tools
from benchmarks.handshake import measure
from benchmarks.handshake.plan import KEYS, MODES, Load
from deploy.node import daemon, envoy
from deploy.node.certificates import Authority, Leaf
from deploy.node.daemon import Counters, Daemon
from deploy.node.envoy import Config, Envoy
from deploy.node.processes import NodeError, Processes
from envoy_ext import render
from envoy_ext.settings import TlsSettings

DAEMON_BACKENDS = {"ifma": "ifma8", "soft": "software"}  # mode: the daemon's setting
ROUTES = [render.direct_response("ok\n")]


@dataclass(frozen=True)
class Slice:
    """One load on one contender, once."""

    load: Mapping[str, Any]  # tlsload's result
    envoy: measure.Usage
    daemon: measure.Usage
    counters: Counters | None  # None: stock has no daemon


@dataclass
class Contender:
    mode: str
    daemon: Daemon | None
    envoys: list[Envoy] = field(default_factory=list)

    def addresses(self, load: Load) -> list[str]:
        return [one.address(listener_name(load.key, load.mtls)) for one in self.envoys[: load.sidecars]]

    def memory_kib(self) -> dict[str, int]:
        own = {"envoy": measure.memory_kib(self.envoys[0].pid)}
        return own | ({"daemon": measure.memory_kib(self.daemon.pid)} if self.daemon else {})


def listener_name(key: str, mtls: bool) -> str:
    return f"{key}-mtls" if mtls else key


class Rig:
    """Starts everything at construction; `processes` ends it."""

    def __init__(self, processes: Processes, folder: Path, modes: Sequence[str] = MODES) -> None:
        self._processes = processes
        self.authority = Authority(folder / "ca")
        self.leaves = [self.authority.issue(key, key, folder / "keys") for key in KEYS]
        self.client = self.authority.issue("client", "p256", folder / "client")
        self.contenders = {mode: self._contender(mode, folder) for mode in modes}
        self.add_sidecars(1)

    def _contender(self, mode: str, folder: Path) -> Contender:
        if mode == "stock":
            return Contender(mode, None)
        settings = daemon.Settings(backend=DAEMON_BACKENDS[mode])
        return Contender(mode, daemon.start(self._processes, f"daemon-{mode}", self.leaves, folder / mode, settings))

    def add_sidecars(self, count: int) -> None:
        """Until every contender has `count` Envoys."""
        for contender in self.contenders.values():
            for number in range(len(contender.envoys), count):
                name = f"envoy-{contender.mode}-{number}"
                contender.envoys.append(
                    envoy.start(self._processes, name, self._config(contender), module=contender.daemon is not None)
                )

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
        """One slice. NodeError when a part of the contender ended."""
        contender = self.contenders[mode]
        envoys = [one.pid for one in contender.envoys[: load.sidecars]]
        daemons = [contender.daemon.pid] if contender.daemon else []
        counters = contender.daemon.counters() if contender.daemon else None
        before = measure.usage_of(envoys), measure.usage_of(daemons)
        result = tools.tlsload(
            *contender.addresses(load),
            duration=seconds,
            concurrency=load.concurrency,
            rate=rate,
            poisson=rate is not None,
            tls=load.tls,
            groups="X25519:P-256:P-384",  # the first is used; TLS 1.2 wants the certificate's curve among them
            resume=load.resumed,
            cert=self.client.certificate_file if load.mtls else None,
            key=self.client.key_file if load.mtls else None,
            histogram=True,
        )
        self._processes.check()
        if not result["handshakes"]:
            raise NodeError(f"{mode}: no handshake in {load.name}: {result['failures_by_reason']}")
        after = measure.usage_of(envoys), measure.usage_of(daemons)
        span = contender.daemon.counters().since(counters) if contender.daemon and counters else None
        return Slice(result, after[0] - before[0], after[1] - before[1], span)
