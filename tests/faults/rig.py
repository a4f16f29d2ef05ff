"""Two sidecars with mTLS between them under a steady load of new connections, and what the load saw of a fault.

Whatever the fault is: both Envoys and the daemon are there at the end, no descriptor stays behind, the access logs know
of no wrong signature, and a stranger who asks for the server's key all the time never gets it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from deploy.node import envoy
from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from tests.envoy_ext import mesh
from tests.envoy_ext.mesh import Services
from tests.envoy_ext.node import EnvoyNode
from tests.faults.stranger import Stranger
from tests.offload.daemon_process import DaemonProcess

CALLERS = 4
REQUEST_SECONDS = 5.0  # a caller gives up then
SETTLED = 20  # successes after which all is taken to be well
DESCRIPTOR_GROWTH = 20  # of a process, with the load ended: a log, a watch, a connection that is about to go
WRONG_SIGNATURE = ("bad signature", "decrypt error", "wrong signature")  # as BoringSSL calls it, at either end


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
    before: str = ""  # what was seen before it was mended, of scenarios of a mesh


@dataclass
class Rig:
    services: Services
    daemon: DaemonProcess  # that is in charge
    server: EnvoyNode
    client: EnvoyNode
    load: Load
    processes: Processes
    _ended: float | None = field(default=None)

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

    # ---- what must hold whatever happened ----

    def descriptors(self) -> dict[int, int]:
        pids = [node.running.pid for node in (self.client, self.server) if node.running.process.running()]
        return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in [*pids, self.daemon.pid]}

    def check(self, before: Mapping[int, int]) -> None:
        """The load has ended; `before`: the descriptors when it began."""
        self.processes.check()

        def grown() -> dict[int, int]:
            now = self.descriptors()
            return {
                pid: now[pid] - count for pid, count in before.items() if now.get(pid, 0) > count + DESCRIPTOR_GROWTH
            }

        wait_for("descriptors to be closed", lambda: not grown())
        reasons = {entry["upstream_failure"] or "" for entry in self.client.access_log("prices")}
        reasons |= set(self.server.failures("server-mtls"))
        for reason in reasons:
            assert not any(words in reason.replace("_", " ").lower() for words in WRONG_SIGNATURE), reason


def none_failed(result: Result) -> Result:
    assert result.failed == 0, f"{result.name}: {result.failed} of {result.tried} requests failed"
    return result


def restart(there: Rig) -> None:
    there.daemon.log_file.unlink()
    there.daemon.start()


def sees_update(nodes: Sequence[EnvoyNode], change: Callable[[], object]) -> None:
    """Does it, and waits until these Envoys have heard."""
    before = [one.stats()["identity_updates"] for one in nodes]
    change()
    for one, count in zip(nodes, before, strict=True):
        wait_for("the news at an Envoy", lambda one=one, count=count: one.stats()["identity_updates"] > count)


def saw_reason(there: Rig, text: str) -> bool:
    """Whether a request has failed for this reason, in the client's access log."""
    entries = there.client.access_log("prices")
    return any(text in (entry["upstream_failure"] or "").replace("_", " ") for entry in entries)


Scenario = Callable[[Path], Result]


@contextmanager
def rig(
    folder: Path,
    client_tls: Callable[[Services], Any] | None = None,
    server_tls: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    of_daemon: Mapping[str, str] | None = None,
    daemon_module: str = "offload",
    hot_restart: bool = False,
    **sections: Any,
) -> Iterator[Rig]:
    """Everything started, and the load on. `environment`: of all three processes; `of_daemon`: of the daemon only."""
    only_envoys = [{"uid": os.getuid(), "executable": str(envoy.binary().resolve())}]
    services = Services.make(folder, selectors=only_envoys, **sections)
    daemon = services.daemon
    daemon.module = daemon_module
    more: dict[str, Any] = {**(environment or {}), **(of_daemon or {})}
    daemon.start(**more)
    there: Rig | None = None
    try:
        with Processes(folder) as processes:

            def start(name: str) -> dict[str, Any]:
                restart = envoy.HotRestart(folder / f"{name}.base-id") if hot_restart else None
                return {"environment": environment, "hot_restart": restart}

            server = mesh.start_server(processes, services, start=start("server"), **(server_tls or {}))
            port = server.running.ports["server-mtls"]
            tls = client_tls(services) if client_tls else services.client_tls(session_tickets=False)
            cluster = render.cluster("prices", "127.0.0.1", port, tls=tls)
            cluster |= render.http_options(requests_per_connection=1)
            client = mesh.start_client(processes, services, {"prices": cluster}, start=start("client"))
            load = Load(client.running.ports["prices"])
            stranger = Stranger(daemon.socket, folder / "keys" / "prices" / "p256.crt")
            load.start()
            stranger.start()
            try:
                load.wait_successes()
                there = Rig(services, daemon, server, client, load, processes)
                before = there.descriptors()
                yield there
            finally:
                load.stop()
                stranger.stop()
            there.check(before)
            stranger.check()
        assert there.daemon.stop() == 0, "the daemon ends properly"
    finally:
        if there is not None:
            there.daemon.stop()
        daemon.stop()
