"""Who may call, by the verified SPIFFE id: RBAC of requests and of connections, and what the called is told."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.node.processes import Processes
from envoy_ext import authorization, render
from envoy_ext.settings import SpiffeMatch
from tests.envoy_ext import mesh, node
from tests.envoy_ext.conftest import Behind
from tests.envoy_ext.mesh import PRICES, Services
from tests.envoy_ext.node import TLS13, EnvoyNode
from tests.envoy_ext.test_verification import Certificate

pytestmark = pytest.mark.envoy

ALICE = "spiffe://mesh.test/ns/shop/sa/alice"
MALLORY = "spiffe://mesh.test/ns/shopping/sa/mallory"
SHOP = {"shop": [SpiffeMatch("prefix", "spiffe://mesh.test/ns/shop")]}
ONLY_ALICE = {"alice": [SpiffeMatch("exact", ALICE)]}


@dataclass(frozen=True)
class Guarded:
    envoy: EnvoyNode
    services: Services
    folder: Path

    def get(self, listener: str, caller: str, path: str = "/", **headers: str) -> bytes:
        certificate = Certificate(uris=(caller,)).write(self.folder / "caller.pem", self.services.authority)
        client = self.envoy.client(listener, "prices.test")
        with client.connect(client.context(TLS13, certificate=certificate)) as connection:
            lines = [f"GET {path} HTTP/1.1", "host: prices.test", "connection: close"]
            lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, behind: Behind) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    services = Services.make(folder)
    services.daemon.start()
    echo = render.route_to_cluster("http")
    echo |= authorization.forwarded_client_cert()

    def http_guarded(name: str, allowed: dict[str, list[SpiffeMatch]]) -> render.Config:
        guard = authorization.rbac_filter("http", allowed)
        manager = render.http_connection_manager([echo], stat_prefix=name, http_filters=[guard])
        chain = render.filter_chain(services.server_tls(), [manager])
        return render.listener(name, 0, [chain], host="127.0.0.1")

    guard = authorization.rbac_filter("network", SHOP)
    manager = render.http_connection_manager([echo], stat_prefix="connections")
    network = render.filter_chain(services.server_tls(), [guard, manager])
    listeners = [
        http_guarded("prefix", SHOP),
        http_guarded("exact", ONLY_ALICE),
        http_guarded("nobody", {}),
        render.listener("network", 0, [network], host="127.0.0.1"),
    ]
    with Processes(folder) as processes:
        config = render.bootstrap(listeners, behind.clusters())
        yield Guarded(node.start_envoy(processes, "envoy", folder, services.bundle("prices"), config), services, folder)
        processes.check()
    services.daemon.stop()


@pytest.mark.parametrize(
    ("listener", "caller", "status"),
    [
        ("prefix", ALICE, 200),
        ("prefix", MALLORY, 403),
        ("exact", ALICE, 200),
        ("exact", ALICE + "/x", 403),
        ("exact", MALLORY, 403),
        ("nobody", ALICE, 403),
        ("network", ALICE, 200),
    ],
)
def test_requests(guarded: Guarded, listener: str, caller: str, status: int) -> None:
    assert guarded.get(listener, caller).startswith(f"HTTP/1.1 {status} ".encode())


def test_connections_of_others_are_closed(guarded: Guarded) -> None:
    try:
        answer = guarded.get("network", MALLORY)
    except (ssl.SSLError, ConnectionError):
        answer = b""
    assert answer == b""
    denied = guarded.envoy.running.stats("tls_offload.rbac.denied")
    assert sum(denied.values()) >= 1


def test_the_called_is_told_the_truth(guarded: Guarded) -> None:
    """A forged header is replaced; the scheme is that of the connection."""
    forged = "By=spiffe://mesh.test/a;Hash=00;URI=spiffe://mesh.test/admin"
    told = guarded.get("prefix", ALICE, x_forwarded_client_cert=forged, x_forwarded_proto="http").decode().lower()
    lines = [line for line in told.splitlines() if line.startswith(authorization.XFCC)]
    assert len(lines) == 1
    assert f"by={PRICES.lower()};hash=" in lines[0]
    assert lines[0].endswith(f"uri={ALICE.lower()}")
    assert "admin" not in told
    assert "x-forwarded-proto: https" in told


def test_principals() -> None:
    key = "tls_offload.peer_spiffe_id"
    exact = {"filter_state": {"key": key, "string_match": {"exact": "spiffe://a/b"}}}
    below = {"filter_state": {"key": key, "string_match": {"prefix": "spiffe://a/b/"}}}
    assert authorization.principal(SpiffeMatch("exact", "spiffe://a/b")) == exact
    assert authorization.principal(SpiffeMatch("prefix", "spiffe://a/b/")) == below
    assert authorization.principal(SpiffeMatch("prefix", "spiffe://a/b")) == {"or_ids": {"ids": [exact, below]}}
    assert mesh.CART not in str(authorization.rbac_rules({"none": []})), "no caller: nobody"
