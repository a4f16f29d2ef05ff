"""Two sidecars with mTLS between them under a steady load of new connections, and what the load saw of a fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from deploy.node.processes import Processes
from envoy_ext import render
from tests.envoy_ext import mesh
from tests.envoy_ext.mesh import Services
from tests.envoy_ext.node import EnvoyNode, wait_for
from tests.offload.daemon_process import DaemonProcess

CALLERS = 4
REQUEST_SECONDS = 5.0  # a caller gives up then
SETTLED = 20  # successes after which all is taken to be well


@dataclass(frozen=True)
class Moment:
    at: float  # seconds, monotonic, when the request ended
    status: int  # 0: no answer


class Load:
    """Requests, each through a new mTLS connection without resumption: two signatures by the daemon."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.moments: list[Moment] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CALLERS)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                status = mesh.request(self._port, timeout=REQUEST_SECONDS).status
            except OSError:
                status = 0
            with self._lock:
                self.moments.append(Moment(time.monotonic(), status))
            if status != 200:
                self._stop.wait(0.01)  # as clients do that are told no at once

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def successes(self) -> int:
        with self._lock:
            return sum(moment.status == 200 for moment in self.moments)

    def wait_successes(self, more: int = SETTLED, seconds: float = 60) -> None:
        wanted = self.successes() + more
        wait_for(f"{more} more requests that succeed", lambda: self.successes() >= wanted, seconds)


@dataclass
class Result:
    """One scenario, as the table shows it."""

    name: str
    must_hold: str
    tried: int = 0
    failed: int = 0
    longest_gap_ms: float = 0  # between two successes
    recovery_ms: float | None = None  # from the end of the fault to the next success; None: nothing was interrupted


@dataclass
class Rig:
    services: Services
    server: EnvoyNode
    client: EnvoyNode
    load: Load
    processes: Processes
    _ended: float | None = field(default=None)

    @property
    def daemon(self) -> DaemonProcess:
        return self.services.daemon

    def fault_ends(self) -> None:
        self._ended = time.monotonic()

    def recovers(self) -> None:
        """The fault is over now; waits until requests succeed again."""
        self.fault_ends()
        self.load.wait_successes()

    def judge(self, result: Result) -> Result:
        moments = sorted(self.load.moments, key=lambda moment: moment.at)
        good = [moment.at for moment in moments if moment.status == 200]
        result.tried, result.failed = len(moments), len(moments) - len(good)
        result.longest_gap_ms = 1e3 * max((b - a for a, b in pairwise(good)), default=0)
        if self._ended is not None:
            after = [at for at in good if at >= self._ended]
            result.recovery_ms = 1e3 * (after[0] - self._ended) if after else None
        return result


@contextmanager
def rig(folder: Path, client_tls: Callable[[Services], Any] | None = None, **sections: Any) -> Iterator[Rig]:
    """Everything started, and the load on; at the end both Envoys must still be there."""
    services = Services.make(folder, **sections)
    services.daemon.start()
    try:
        with Processes(folder) as processes:
            server = mesh.start_server(processes, services)
            port = server.running.ports["server-mtls"]
            tls = client_tls(services) if client_tls else services.client_tls(session_tickets=False)
            cluster = render.cluster("prices", "127.0.0.1", port, tls=tls)
            cluster |= render.http_options(requests_per_connection=1)
            client = mesh.start_client(processes, services, {"prices": cluster})
            load = Load(client.running.ports["prices"])
            load.start()
            try:
                load.wait_successes()
                yield Rig(services, server, client, load, processes)
            finally:
                load.stop()
    finally:
        services.daemon.stop()
