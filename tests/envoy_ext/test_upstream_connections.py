"""Connections of the client's side: that end in the handshake, that outlive their certificate, thousands of them.

The rest of the client's side is in test_upstream.py.
"""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from tests.envoy_ext import mesh
from tests.envoy_ext.mesh import PRICES, Services, request
from tests.envoy_ext.node import EnvoyNode
from tests.offload.key_files import key_pem, make_key, pem

pytestmark = pytest.mark.envoy

PENDING_S = 0.5  # how long the client waits for its signature before the server goes
LEFT = 3  # handshakes
PATIENCE_S = 30  # of the client, with the daemon and with the connection
CALLERS = 8
ROUND = 1000  # connections
ROUNDS = 3
# Envoy's allocator keeps what it freed; a leak of one connection object per handshake would be far above this.
GROWTH_KIB = 16 * 1024


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services.make(tmp_path)
    made.daemon.start()
    yield made
    made.daemon.stop()


class Leaves:
    """A TLS server that asks for the client's certificate, and is gone while the client waits for its signature."""

    def __init__(self, certificate: Path, ca: Path, reset: bool) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(certificate)
        self._context.load_verify_locations(ca)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._reset = reset
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.left = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                raw, _ = self._listening.accept()
            except OSError:
                return  # closed
            raw.settimeout(PENDING_S)
            with self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False) as connection:
                try:
                    connection.do_handshake()
                except TimeoutError:  # our flight is sent, and nothing comes back
                    self.left += 1
                if self._reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_the_server_goes_while_the_clients_signature_is_pending(
    services: Services, tmp_path: Path, processes: Processes, reset: bool
) -> None:
    key = make_key("p256")
    certificate = tmp_path / "server.pem"
    certificate.write_bytes(pem(services.authority.issue(key, "prices", uris=(PRICES,))) + key_pem(key))
    server = Leaves(certificate, services.bundle("prices"), reset)
    tls = services.client_tls(session_tickets=False, operation_timeout_ms=1000 * PATIENCE_S)
    cluster = render.cluster("prices", "127.0.0.1", server.port, tls=tls, connect_timeout_s=PATIENCE_S)
    client = mesh.start_client(
        processes, services, {"prices": cluster | render.http_options(requests_per_connection=1)}
    )
    wait_for("the client's identity", lambda: client.stats()["identity_updates"] > 0)
    descriptors = client.descriptors()
    services.daemon.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        statuses = [request(client.running.ports["prices"], timeout=2 * PATIENCE_S).status for _ in range(LEFT)]
        took = time.monotonic() - began
    finally:
        services.daemon.signal(signal.SIGCONT)
    assert statuses == [503] * LEFT
    assert server.left == LEFT, "each with the signature pending"
    assert took < PATIENCE_S, "the end of the connection is seen, and not only the end of the client's patience"
    stats = client.stats()
    assert stats["upstream_handshakes_aborted"] == LEFT
    assert stats["upstream_operations_ok"] == 0
    wait_for("descriptors to be closed", lambda: client.descriptors() <= descriptors)
    processes.check()
    server.close()


def test_a_connection_outlives_its_certificates(services: Services, processes: Processes) -> None:
    """Both ends are renewed; who is connected stays so, with the certificates that it came with."""
    server = mesh.start_server(processes, services)
    port = server.running.ports["server-mtls"]
    tls = services.client_tls(session_tickets=False)
    clusters = {
        "long": render.cluster("long", "127.0.0.1", port, tls=tls),
        "h2": render.cluster("h2", "127.0.0.1", port, http2=True, tls=tls),
        "once": render.cluster("once", "127.0.0.1", port, tls=tls) | render.http_options(requests_per_connection=1),
    }
    client = mesh.start_client(processes, services, clusters)

    # One connection to Envoy each: it stays with one of Envoy's workers, and so with that one's upstream connection.
    kept = {name: http.client.HTTPConnection("127.0.0.1", client.running.ports[name], timeout=30) for name in clusters}

    def serial(name: str) -> str | None:
        kept[name].request("GET", "/")
        answer = kept[name].getresponse()
        answer.read()
        assert answer.status == 200
        return answer.getheader("x-peer_serial")

    def connections(name: str) -> int:
        counter = f"cluster.{name}.upstream_cx_total"
        return client.running.stats(counter)[counter]

    first = {name: serial(name) for name in clusters}
    assert len(set(first.values())) == 1
    for _ in range(2):
        updates = [one.stats()["identity_updates"] for one in (client, server)]
        fresh = f"{services.issue('cart', mesh.CART):x}"
        services.issue("prices", PRICES)
        for one, before in zip((client, server), updates, strict=True):
            wait_for("the new certificate", lambda one=one, before=before: one.stats()["identity_updates"] > before)
        wait_for("it on new connections", lambda fresh=fresh: int(serial("once") or "0", 16) == int(fresh, 16))
        for name in ("long", "h2"):
            assert [serial(name) for _ in range(20)] == [first[name]] * 20
            assert connections(name) == 1
    for connection in kept.values():
        connection.close()


@pytest.mark.parametrize("version", ["http/1.1", "h2"])
def test_health_checks_are_full_handshakes(services: Services, processes: Processes, version: str) -> None:
    server = mesh.start_server(processes, services)
    port = server.running.ports["server-mtls"]
    http2 = version == "h2"
    cluster = render.cluster("prices", "127.0.0.1", port, http2=http2, tls=services.client_tls(session_tickets=False))
    check = {"path": "/", "codec_client_type": "HTTP2" if http2 else "HTTP1"}
    cluster["health_checks"] = [
        {
            "timeout": "5s",
            "interval": "0.1s",
            "no_traffic_interval": "0.1s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
            "reuse_connection": False,
            "http_health_check": check,
        }
    ]
    client = mesh.start_client(processes, services, {"prices": cluster})

    def checks(what: str) -> int:
        counter = f"cluster.prices.health_check.{what}"
        return client.running.stats(counter)[counter]

    wait_for("ten health checks", lambda: checks("success") >= 10)
    assert checks("failure") == 0
    assert client.stats()["upstream_operations_ok"] >= 10, "each with the key at the daemon"
    answer = request(client.running.ports["prices"])
    assert answer.status == 200
    assert answer.headers.get("x-alpn") == ("h2" if http2 else None)


def test_thousands_of_connections_leave_nothing_behind(services: Services, processes: Processes) -> None:
    server = mesh.start_server(processes, services)
    port = server.running.ports["server-mtls"]
    cluster = render.cluster("prices", "127.0.0.1", port, tls=services.client_tls(session_tickets=False))
    client = mesh.start_client(
        processes, services, {"prices": cluster | render.http_options(requests_per_connection=1)}
    )

    def call(count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", client.running.ports["prices"], timeout=60)
        for _ in range(count):
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
        connection.close()

    def one_round() -> None:
        with ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(call, [ROUND // CALLERS] * CALLERS))

    def settled(node: EnvoyNode) -> tuple[int, int]:
        return node.descriptors(), node.resident_kib()

    one_round()
    before = {node: settled(node) for node in (client, server)}
    for _ in range(ROUNDS):
        one_round()
    assert client.stats()["upstream_handshakes"] >= (1 + ROUNDS) * ROUND
    assert client.stats()["upstream_handshakes_failed"] == 0
    for node, (descriptors, memory) in before.items():
        wait_for("connections to go", lambda node=node, most=descriptors: node.descriptors() <= most + 10)
        assert node.resident_kib() <= memory + GROWTH_KIB
