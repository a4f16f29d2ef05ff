"""The daemon that is late, killed, restarted, stopped: Envoy stays up, says why, and recovers."""

from __future__ import annotations

import signal
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from envoy_ext.settings import TlsSettings
from offload.reporting import exit_codes
from tests.envoy_ext import node
from tests.envoy_ext.node import EnvoyNode, Material
from tests.envoy_ext.tls_clients import Client
from tests.offload.daemon_process import DaemonProcess

pytestmark = pytest.mark.envoy

WAIT_MS = 600


@pytest.fixture(params=[WAIT_MS])
def envoy(
    request: pytest.FixtureRequest,
    material: Material,
    own_daemon: DaemonProcess,
    processes: Processes,
    tmp_path: Path,
) -> Iterator[EnvoyNode]:
    """The parameter is handshake_wait_ms."""
    wait_ms = request.param
    timeout_ms = max(1500, wait_ms)
    tls = TlsSettings(
        identities=("web",),
        daemon_socket=own_daemon.socket,
        handshake_wait_ms=wait_ms,
        operation_timeout_ms=timeout_ms,
    )
    config = render.bootstrap([node.http(tmp_path, "https", tls, [render.direct_response("hello\n")])])
    running = node.start_envoy(processes, "envoy", tmp_path, material.ca, config)
    yield running
    processes.check()  # Envoy is still there


def works(client: Client) -> bool:
    try:
        with client.connect() as connection:
            return client.get(connection).endswith(b"hello\n")
    except OSError:  # ssl.SSLError is one
        return False


def restart(daemon: DaemonProcess) -> None:
    """Starts it again and waits until it serves; its old log would say that it does."""
    daemon.log_file.unlink()
    daemon.start()


class Load:
    """New connections all the time, from four threads; what failed and when."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.results: list[tuple[float, bool]] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def _run(self) -> None:
        while not self._stop.is_set():
            worked = works(self.client)
            self.results.append((time.monotonic(), worked))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def succeeded(self) -> int:
        return sum(worked for _, worked in self.results)

    def wait_successes(self, count: int) -> None:
        target = self.succeeded() + count
        wait_for(f"{count} more handshakes", lambda: self.succeeded() >= target)


def test_a_daemon_that_comes_later_is_no_error(envoy: EnvoyNode, own_daemon: DaemonProcess) -> None:
    client = envoy.client("https")
    began = time.monotonic()
    assert not works(client)
    assert time.monotonic() - began >= WAIT_MS / 1000, "the handshake waited for the daemon"
    reason = envoy.wait_failure("https", "daemon unavailable: no connection to")
    assert str(own_daemon.socket).replace("_", " ") in reason
    assert "No such file or directory" in reason
    own_daemon.start()
    wait_for("a handshake", lambda: works(client))
    stats = envoy.stats()
    assert stats["connected"] == 1
    assert stats["connection_failures"] > 0
    assert stats["identity_waits_failed"] > 0


def test_the_wait_is_of_a_handshake_not_of_an_identity(
    material: Material, own_daemon: DaemonProcess, processes: Processes, tmp_path: Path
) -> None:
    """A client whose name any of ten identities may have waits once, not ten times."""
    names = tuple(f"identity-{number}" for number in range(10))
    tls = TlsSettings(identities=names, daemon_socket=own_daemon.socket, handshake_wait_ms=1000)
    config = render.bootstrap([node.http(tmp_path, "https", tls, [render.direct_response("hello\n")])])
    envoy = node.start_envoy(processes, "envoy", tmp_path, material.ca, config)
    began = time.monotonic()
    assert not works(envoy.client("https"))
    waited = time.monotonic() - began
    assert 1 <= waited < 6, "ten waits of a second are ten seconds"
    assert envoy.wait_failure("https", "daemon unavailable: no connection to")
    assert envoy.stats()["identity_waits_failed"] == 10


def test_a_handshake_waits_for_a_daemon_that_is_nearly_there(envoy: EnvoyNode, own_daemon: DaemonProcess) -> None:
    """Started within the bound, the daemon serves a handshake that began before it."""
    own_daemon.start()
    client = envoy.client("https")
    wait_for("the first handshake", lambda: works(client))
    own_daemon.signal(signal.SIGSTOP)
    outcome: list[bool] = []
    thread = threading.Thread(target=lambda: outcome.append(works(client)))
    thread.start()
    time.sleep(WAIT_MS / 2000)
    own_daemon.signal(signal.SIGCONT)
    thread.join()
    assert outcome == [True]


def test_killed_and_restarted_under_load(envoy: EnvoyNode, own_daemon: DaemonProcess) -> None:
    own_daemon.start()
    client = envoy.client("https")
    wait_for("the first handshake", lambda: works(client))
    with Load(client) as load:
        for _ in range(2):
            load.wait_successes(50)
            own_daemon.signal(signal.SIGKILL)
            own_daemon.wait()
            time.sleep(WAIT_MS / 1000)
            restart(own_daemon)
            serving = time.monotonic()
            load.wait_successes(50)
            first = next(at for at, worked in load.results if worked and at >= serving)
            assert first - serving < 1, "new handshakes work again within a second"
    stats = envoy.stats()
    assert stats["reconnects"] >= 2
    assert stats["connected"] == 1
    assert envoy.wait_failure("https", "daemon unavailable")
    assert client.load(count=200, concurrency=20)["failures"] == 0


@pytest.mark.parametrize("envoy", [12_000], indirect=True)
def test_a_graceful_restart_loses_no_handshake(envoy: EnvoyNode, own_daemon: DaemonProcess) -> None:
    """SIGTERM drains: what is in flight is answered, what is new waits for the next daemon."""
    own_daemon.start()
    client = envoy.client("https")
    wait_for("the first handshake", lambda: works(client))
    with Load(client) as load:
        for _ in range(2):
            load.wait_successes(50)
            own_daemon.signal(signal.SIGTERM)
            own_daemon.wait()
            restart(own_daemon)
        load.wait_successes(50)
    assert all(worked for _, worked in load.results), envoy.failures("https")
    stats = envoy.stats()
    assert stats["reconnects"] == 2
    assert stats["handshakes_failed"] == 0


def test_five_upgrades_lose_no_handshake(envoy: EnvoyNode, own_daemon: DaemonProcess) -> None:
    """Without a gap, so that the bound on a handshake's wait (600 ms) is no reason for a failure either."""
    started = [own_daemon.start()]
    client = envoy.client("https")
    wait_for("the first handshake", lambda: works(client))
    try:
        with Load(client) as load:
            for number in range(5):
                started.append(own_daemon.upgrade(number))
                started[-1].wait_log("serving")
                assert started[-2].wait(60) == exit_codes.OK
                load.wait_successes(20)
        assert all(worked for _, worked in load.results), envoy.failures("https")
        stats = envoy.stats()
        assert stats["reconnects"] == 5
        assert stats["handshakes_failed"] == 0
    finally:
        for each in started:
            each.stop()


def test_a_daemon_that_hangs_does_not_hang_envoy(envoy: EnvoyNode, own_daemon: DaemonProcess) -> None:
    own_daemon.start()
    client = envoy.client("https")
    wait_for("the first handshake", lambda: works(client))
    own_daemon.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert not works(client)
        assert time.monotonic() - began < 10, "bounded by operation_timeout_ms"
        assert envoy.wait_failure("https", "daemon did not answer within 1500 ms")
    finally:
        own_daemon.signal(signal.SIGCONT)
    wait_for("handshakes to work again", lambda: works(client))
    assert envoy.stats()["operations_failed_timeout"] > 0


def test_resumed_sessions_do_without_the_daemon(envoy: EnvoyNode, own_daemon: DaemonProcess) -> None:
    own_daemon.start()
    client = envoy.client("https")
    wait_for("the first handshake", lambda: works(client))
    context = client.context(ssl.TLSVersion.TLSv1_3)
    with client.connect(context) as connection:
        client.get(connection)
        session = connection.session
    own_daemon.signal(signal.SIGKILL)
    own_daemon.wait()
    with client.connect(context, session) as connection:
        assert connection.session_reused
        assert client.get(connection).endswith(b"hello\n")


def test_a_client_that_leaves_while_the_daemon_is_away(envoy: EnvoyNode, own_daemon: DaemonProcess) -> None:
    """Its connection is closed at once, not at the end of the wait."""
    own_daemon.start()
    client = envoy.client("https")
    wait_for("the first handshake", lambda: works(client))
    own_daemon.signal(signal.SIGSTOP)
    try:
        descriptors = envoy.descriptors()
        client.load(count=100, concurrency=100, abort=True, abort_within=5)
        wait_for("Envoy to close them", lambda: envoy.descriptors() <= descriptors + 1, seconds=1.2)
    finally:
        own_daemon.signal(signal.SIGCONT)
