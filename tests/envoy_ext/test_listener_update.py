"""Listener updates under load: Envoy swaps listeners in place, and neither connections nor handshakes are lost."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from envoy_ext.settings import TlsSettings
from tests.envoy_ext import node
from tests.envoy_ext.node import EnvoyNode, Material
from tests.envoy_ext.tls_clients import Client
from tests.offload.daemon_process import DaemonProcess
from tests.offload.key_files import make_key, write_pair

pytestmark = pytest.mark.envoy

UPDATES = 6
IN_FORCE = len(node.IDENTITIES)  # at the daemon's start


class Dynamic:
    """An Envoy whose one listener comes from a file that it watches."""

    def __init__(self, folder: Path, daemon_socket: Path) -> None:
        self.folder = folder
        self.daemon_socket = daemon_socket
        self.file = folder / "listeners.json"
        # Fixed from the start: a listener whose address changes is another listener, not an update.
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def write(self, body: str, **tls: Any) -> None:
        settings = TlsSettings(identities=("web",), daemon_socket=self.daemon_socket, **tls)
        # A field that Envoy does not compare would not be an update: the body always differs.
        listener = node.http(self.folder, "https", settings, [render.direct_response(body)])
        listener["address"] = render.socket_address("127.0.0.1", self.port)
        listener["drain_type"] = "MODIFY_ONLY"
        staged = self.file.with_suffix(".new")
        staged.write_text(json.dumps(render.listeners_document([listener])))
        os.rename(staged, self.file)


@pytest.fixture
def dynamic(shared_daemon: DaemonProcess, tmp_path: Path) -> Dynamic:
    return Dynamic(tmp_path, shared_daemon.socket)


@pytest.fixture
def envoy(dynamic: Dynamic, material: Material, processes: Processes, tmp_path: Path) -> Iterator[EnvoyNode]:
    dynamic.write("first\n")
    config = render.bootstrap([], listeners_file=dynamic.file)
    running = node.start_envoy(processes, "envoy", tmp_path, material.ca, config)
    yield running
    processes.check()


def accepted(envoy: EnvoyNode) -> int:
    return envoy.running.stats("listener_manager.lds.")["listener_manager.lds.update_success"]


def body_of(envoy: EnvoyNode) -> bytes:
    client = envoy.client("https")
    with client.connect() as connection:
        return client.get(connection).split(b"\r\n\r\n")[1]


def test_updates_under_load(envoy: EnvoyNode, dynamic: Dynamic) -> None:
    client = envoy.client("https")
    reports: list[dict[str, Any]] = []
    loads = threading.Thread(target=lambda: reports.append(client.load(duration=5, concurrency=20, get="/")))
    lasting = client.connect()  # of the first listener; must outlive them all
    loads.start()
    for number in range(UPDATES):
        before = accepted(envoy)
        # Another TLS context each time, a client of the same daemon each time.
        dynamic.write(f"update {number}\n", session_lifetime_s=3600 + number)
        wait_for("Envoy to take the update", lambda before=before: accepted(envoy) > before)
        wait_for("the new answer", lambda number=number: body_of(envoy) == f"update {number}\n".encode())
    loads.join()
    assert reports[0]["failures"] == 0, reports[0]["failures_by_reason"]
    assert reports[0]["responses"] > 100
    assert client.get(lasting).endswith(b"\n"), "a connection of the first listener still works"
    lasting.close()
    stats = envoy.stats()
    assert stats["reconnects"] == 0, "one client of the daemon served all listeners"
    assert stats["connections"] == 1


def test_a_rejected_update_leaves_the_old_listener(envoy: EnvoyNode, dynamic: Dynamic) -> None:
    dynamic.write("never\n", cipher_suites=("NO-SUCH-SUITE",))
    rejected = "listener_manager.lds.update_rejected"
    wait_for("Envoy to reject it", lambda: envoy.running.stats("listener_manager.lds.")[rejected] == 1)
    assert "cipher_suites: BoringSSL does not know 'NO-SUCH-SUITE'" in envoy.log()
    assert body_of(envoy) == b"first\n"


def test_an_update_asks_anew_for_an_identity_that_was_refused(
    material: Material, processes: Processes, tmp_path: Path
) -> None:
    """Whoever switches a listener to an identity that the daemon has got meanwhile loses no handshake, however long the
    module waits between its own questions by then."""
    keys = tmp_path / "keys"
    shutil.copytree(material.ca.parent / "keys", keys)
    daemon = node.make_daemon(tmp_path, material, keys={"directory": str(keys), "debounce_ms": 50})
    daemon.start()
    dynamic = Dynamic(tmp_path, daemon.socket)
    dynamic.write("first\n")
    envoy = node.start_envoy(
        processes, "envoy", tmp_path, material.ca, render.bootstrap([], listeners_file=dynamic.file)
    )
    assert body_of(envoy) == b"first\n"
    shutil.rmtree(keys / "web")
    wait_for("the refusal", lambda: envoy.stats()["identities_refused"] > 0)
    time.sleep(2)  # from now on the module asks once a second
    key = make_key("p256")
    write_pair(keys / "web", "p256", key, material.authority.issue(key, "web", ("web.test",)))
    wait_for("the identity at the daemon", lambda: daemon.log_file.read_text().count('"identity in force"') > IN_FORCE)
    before = accepted(envoy)
    dynamic.write("again\n")
    wait_for("Envoy to take the update", lambda: accepted(envoy) > before)
    wait_for("the new answer", lambda: body_of(envoy) == b"again\n")  # an error in between would end the test
    processes.check()
    daemon.stop()


def test_the_listener_goes_while_connections_wait(
    envoy: EnvoyNode, dynamic: Dynamic, processes: Processes, tmp_path: Path
) -> None:
    """Connections that wait for a daemon nobody started, and their listener is removed: nothing crashes or stays."""
    dynamic.daemon_socket = tmp_path / "nobody.sock"
    dynamic.write("waiting\n", handshake_wait_ms=60_000)
    wait_for("the update", lambda: accepted(envoy) >= 2)
    client = envoy.client("https")
    threads = [threading.Thread(target=attempt, args=(client,)) for _ in range(10)]
    for thread in threads:
        thread.start()
    wait_for("the connections", lambda: active(envoy) >= 10)
    staged = dynamic.file.with_suffix(".new")
    staged.write_text(json.dumps(render.listeners_document([])))
    os.rename(staged, dynamic.file)
    wait_for("the removal", lambda: accepted(envoy) >= 3)
    processes.stop(envoy.running.process)  # with all of them still waiting
    for thread in threads:
        thread.join()
    assert "Caught" not in envoy.log(), "Envoy crashed"
    assert "assert" not in envoy.log()


def active(envoy: EnvoyNode) -> int:
    """Connections open now, of all listeners."""
    stats = envoy.running.stats("listener.127.0.0.1")
    return sum(n for name, n in stats.items() if name.endswith(".downstream_cx_active") and "worker" not in name)


def attempt(client: Client) -> None:
    try:
        client.connect().close()
    except OSError:
        return  # what is expected: no daemon
