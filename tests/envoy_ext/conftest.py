"""One daemon and one Envoy that most tests share, and factories for those that break theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.node.processes import Processes
from envoy_ext import render
from envoy_ext.settings import TlsSettings
from tests.envoy_ext import backends, node
from tests.offload.daemon_process import DaemonProcess

ALPN = ("h2", "http/1.1")


@dataclass(frozen=True)
class Node:
    material: node.Material
    daemon: DaemonProcess
    envoy: node.EnvoyNode


@dataclass(frozen=True)
class Behind:
    """Ports of the servers behind Envoy."""

    http: int
    reverse: int
    farewell: int

    def clusters(self) -> list[render.Config]:
        ports = {"http": self.http, "reverse": self.reverse, "farewell": self.farewell}
        return [render.cluster(name, "127.0.0.1", port) for name, port in ports.items()]


@pytest.fixture(scope="session")
def behind() -> Iterator[Behind]:
    servers = (
        backends.HttpServer(("127.0.0.1", 0), backends.HttpEcho),
        backends.TcpServer(("127.0.0.1", 0), backends.ReverseAtEnd),
        backends.TcpServer(("127.0.0.1", 0), backends.FarewellAtOnce),
    )
    yield Behind(*(backends.serve(server) for server in servers))
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> node.Material:
    return node.Material.make(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def shared_daemon(material: node.Material, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    folder = tmp_path_factory.mktemp("daemon")
    daemon = node.make_daemon(folder, material, keys={"directory": str(material.ca.parent / "keys")})
    yield daemon.start()
    daemon.stop()


@pytest.fixture
def own_daemon(material: node.Material, tmp_path: Path) -> Iterator[DaemonProcess]:
    """Not started; for tests that kill it."""
    daemon = node.make_daemon(tmp_path, material, keys={"directory": str(material.ca.parent / "keys")})
    yield daemon
    daemon.stop()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def shared(
    material: node.Material, shared_daemon: DaemonProcess, behind: Behind, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """Listeners for the tests that leave everything as it is."""
    folder = tmp_path_factory.mktemp("envoy")
    socket = shared_daemon.socket

    def tls(*identities: str, **more: object) -> TlsSettings:
        return TlsSettings(identities=identities, daemon_socket=socket, **more)  # type: ignore[arg-type]

    echo = [render.direct_response("hello\n", "/hello"), render.route_to_cluster("http")]
    publish = [{"header": {"key": f"x-{key}", "value": render.filter_state(key)}} for key in PUBLISHED]
    facts = [{**render.direct_response("ok\n"), "response_headers_to_add": publish}]
    every = ("web", "shop", "old", "edge")
    cipher = ("ECDHE-RSA-AES128-GCM-SHA256",)
    listeners = [
        node.http(folder, "https", tls(*every, alpn=ALPN), echo),
        node.http(folder, "again", tls(*every, alpn=ALPN), echo),
        node.http(folder, "facts", tls(*every, alpn=ALPN), facts),
        node.http(folder, "strict", tls("web", "shop", unknown_server_name="reject"), echo),
        node.http(folder, "only12", tls("web", tls_maximum="1.2", cipher_suites=cipher), echo),
        node.http(folder, "only13", tls("web", tls_minimum="1.3", groups=("P-384",)), echo),
        node.http(folder, "rsakx", tls("old", tls_maximum="1.2", cipher_suites=("AES128-GCM-SHA256",)), echo),
        node.http(folder, "ticketless", tls("web", session_tickets=False, groups=HYBRID), echo),
        node.http(folder, "optional", tls("web", client_certificate="optional"), facts),
        node.http(folder, "required", tls("web", client_certificate="required"), facts),
        node.http(folder, "ca_file", tls("web", client_certificate="required", trusted_ca_file=material.ca), facts),
        node.http(folder, "other", tls("web", client_certificate="required", trust_domains=("other.test",)), facts),
        node.http(folder, "nobody", tls("nobody"), echo),
        node.tcp(folder, "reverse", tls("web"), "reverse"),
        node.tcp(folder, "farewell", tls("web"), "farewell"),
    ]
    with Processes(folder) as started:
        config = render.bootstrap(listeners, behind.clusters())
        running = node.start_envoy(started, "envoy", folder, material.ca, config)
        yield Node(material, shared_daemon, running)
        started.check()  # whatever the tests did, Envoy is still there


PUBLISHED: tuple[str, ...]
PUBLISHED = ("peer_spiffe_id", "peer_sha256", "peer_serial", "identity", "server_name", "tls_version", "cipher")
HYBRID = ("X25519MLKEM768", "X25519")
PUBLISHED += ("group", "alpn", "resumed", "key_type", "backend", "batch_size", "operation_us")
