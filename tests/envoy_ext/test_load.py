"""Many connections, good ones and aborted ones; nothing may grow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from envoy_ext.settings import TlsSettings
from tests.envoy_ext import node
from tests.envoy_ext.conftest import Behind
from tests.envoy_ext.node import EnvoyNode, Material
from tests.offload.daemon_process import DaemonProcess

pytestmark = pytest.mark.envoy

# Envoy's allocator keeps what it freed; a leak of one connection object per handshake would be far above this.
GROWTH_KIB = 16 * 1024


@pytest.fixture(scope="module")
def envoy(
    material: Material, shared_daemon: DaemonProcess, behind: Behind, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EnvoyNode]:
    """An Envoy of its own: its memory and counters are nobody else's."""
    folder = tmp_path_factory.mktemp("load")
    tls = TlsSettings(identities=("web",), daemon_socket=shared_daemon.socket, alpn=("http/1.1",))
    routes = [render.direct_response("hello\n", "/hello"), render.route_to_cluster("http")]
    config = render.bootstrap([node.http(folder, "https", tls, routes)], behind.clusters())
    with Processes(folder) as started:
        yield node.start_envoy(started, "envoy", folder, material.ca, config)
        started.check()


@pytest.mark.parametrize(
    ("tls", "sigalgs"),
    [("1.3", "rsa_pss_rsae_sha256"), ("1.3", "ecdsa_secp256r1_sha256"), ("1.2", "rsa_pss_rsae_sha256")],
)
def test_two_thousand_connections_fifty_at_a_time(envoy: EnvoyNode, tls: str, sigalgs: str) -> None:
    before = envoy.stats()
    report = envoy.client("https").load(
        count=2000, concurrency=50, tls=tls, sigalgs=sigalgs, get="/hello", ca=envoy.ca, sni="web.test"
    )
    assert report["failures"] == 0, report["failures_by_reason"]
    assert report["handshakes"] == report["responses"] == 2000
    after = envoy.stats()
    assert after["operations_ok"] - before["operations_ok"] == 2000
    assert after["handshakes"] - before["handshakes"] == 2000
    assert after["handshakes_failed"] == before["handshakes_failed"]


def test_a_thousand_connections_aborted_in_the_handshake(envoy: EnvoyNode) -> None:
    client = envoy.client("https")
    client.load(count=200, concurrency=50)
    descriptors = envoy.descriptors()
    before = envoy.stats()
    report = client.load(count=1000, concurrency=50, abort=True, abort_within=2)
    assert report["aborted"] + report["handshakes"] >= 1000
    wait_for("Envoy to close what was aborted", lambda: envoy.descriptors() <= descriptors + 2)
    after = envoy.stats()
    assert after["handshakes_aborted"] > before["handshakes_aborted"]
    assert after["handshakes_failed"] == before["handshakes_failed"]
    assert client.load(count=50, concurrency=10, get="/hello")["failures"] == 0


def test_no_descriptor_or_memory_growth(envoy: EnvoyNode) -> None:
    client = envoy.client("https")

    def round_of_everything() -> None:
        assert client.load(count=1000, concurrency=50, get="/hello")["failures"] == 0
        client.load(count=1000, concurrency=50, abort=True, abort_within=2)
        assert client.load(count=300, concurrency=20, resume=True, get="/hello")["failures"] == 0

    round_of_everything()
    round_of_everything()
    wait_for("the first connections to go", lambda: envoy.running.stats("listener.")[downstream(envoy)] == 0)
    descriptors, memory = envoy.descriptors(), envoy.resident_kib()
    for _ in range(4):
        round_of_everything()
    wait_for("the last connections to go", lambda: envoy.running.stats("listener.")[downstream(envoy)] == 0)
    assert envoy.descriptors() <= descriptors + 2
    assert envoy.resident_kib() <= memory + GROWTH_KIB


def downstream(envoy: EnvoyNode) -> str:
    """The gauge of open connections of the one listener."""
    names = envoy.running.stats("listener.127.0.0.1")
    return next(name for name in names if name.endswith("downstream_cx_active") and "worker" not in name)


def test_clients_that_never_speak_do_not_stop_others(envoy: EnvoyNode) -> None:
    client = envoy.client("https")
    silent = [client.raw() for _ in range(200)]
    try:
        assert client.load(count=200, concurrency=20, get="/hello")["failures"] == 0
    finally:
        for connection in silent:
            connection.close()


def test_bulk_beside_new_connections(envoy: EnvoyNode, tmp_path: Path) -> None:
    """Large bodies on both workers while handshakes go on."""
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * 4096 * 10)
    client = envoy.client("https")
    results: list[bytes] = []

    def transfer() -> None:
        arguments = ("-H", "expect:", "--data-binary", f"@{body}")
        results.append(client.curl(*arguments).stdout)

    threads = [threading.Thread(target=transfer) for _ in range(4)]
    for thread in threads:
        thread.start()
    report = client.load(count=500, concurrency=20, get="/hello")
    for thread in threads:
        thread.join()
    assert report["failures"] == 0, report["failures_by_reason"]
    assert results == [body.read_bytes()] * 4
