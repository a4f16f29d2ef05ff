"""The client's side: a cluster whose connections use a key at the daemon, against another Envoy and its key there."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from envoy_ext.settings import SpiffeMatch
from tests.envoy_ext import mesh, node
from tests.envoy_ext.conftest import Behind
from tests.envoy_ext.mesh import CART, PRICES, Services, exactly, request
from tests.envoy_ext.node import EnvoyNode
from tests.offload.key_files import Authority

pytestmark = pytest.mark.envoy


@dataclass(frozen=True)
class Pair:
    services: Services
    server: EnvoyNode
    client: EnvoyNode

    def port(self, cluster: str) -> int:
        return self.client.running.ports[cluster]

    def stats(self) -> dict[str, int]:
        return {
            key.removeprefix("upstream_"): value
            for key, value in self.client.stats().items()
            if key.startswith("upstream_")
        }

    def reasons(self, cluster: str) -> list[str]:
        entries = self.client.access_log(cluster)
        return [(entry["upstream_failure"] or "").replace("_", " ") for entry in entries]

    def wait_reason(self, cluster: str, text: str) -> None:
        wait_for(f"'{text}' in the log of {cluster}", lambda: any(text in reason for reason in self.reasons(cluster)))


def once(cluster: render.Config) -> render.Config:
    """Every request on a connection of its own."""
    return cluster | render.http_options(requests_per_connection=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, behind: Behind) -> Iterator[Pair]:
    """For tests that leave it as it is: clusters of all kinds to one server."""
    folder = tmp_path_factory.mktemp("pair")
    services = Services.make(folder)
    services.daemon.start()
    echo = [
        {**render.direct_response("ok\n", "/facts"), "response_headers_to_add": mesh.published()},
        render.route_to_cluster("http"),
    ]
    with Processes(folder) as processes:
        server = mesh.start_server(processes, services, behind.clusters(), echo)
        port = server.running.ports["server-mtls"]

        def to_server(name: str, http2: bool = False, **tls: Any) -> render.Config:
            return render.cluster(name, "127.0.0.1", port, http2=http2, tls=services.client_tls(**tls))

        prefix = (SpiffeMatch("prefix", PRICES.rpartition("/")[0]),)
        clusters = {
            "h1": to_server("h1"),
            "h2": to_server("h2", http2=True),
            "once": once(to_server("once")),
            "ticketless": once(to_server("ticketless", session_tickets=False)),
            "tls12": once(to_server("tls12", tls_maximum="1.2")),
            "prefix": to_server("prefix", peer_spiffe_ids=prefix),
            "named": to_server("named", server_name="prices.test", peer_spiffe_ids=(), peer_dns_names=("prices.test",)),
            "stranger": once(to_server("stranger", peer_spiffe_ids=exactly(CART))),
            "misnamed": once(to_server("misnamed", peer_spiffe_ids=(), peer_dns_names=("cart.test",))),
            "foreign": once(to_server("foreign", trust_domains=("other.test",))),
        }
        yield Pair(services, server, mesh.start_client(processes, services, clusters))
        processes.check()
    services.daemon.stop()


@pytest.mark.parametrize("cluster", ["h1", "h2", "once", "prefix", "named"])
def test_both_ends_are_authenticated(pair: Pair, cluster: str) -> None:
    answer = request(pair.port(cluster), path="/facts")
    assert answer.status == 200
    assert answer.headers["x-peer_spiffe_id"] == CART
    assert answer.headers["x-tls_version"] == "TLSv1.3"
    assert answer.headers.get("x-alpn") == ("h2" if cluster == "h2" else None)
    assert answer.headers.get("x-server_name") == ("prices.test" if cluster == "named" else None)


@pytest.mark.parametrize("cluster", ["h1", "h2"])
def test_ten_megabytes_both_ways(pair: Pair, cluster: str) -> None:
    body = os.urandom(10_000_000)
    answer = request(pair.port(cluster), "POST", "/", body)
    assert answer.status == 200
    assert answer.body == body


def test_sessions_are_resumed(pair: Pair) -> None:
    before = pair.stats()
    answers = [request(pair.port("once"), path="/facts") for _ in range(10)]
    assert [a.status for a in answers] == [200] * 10
    assert {a.headers["x-peer_spiffe_id"] for a in answers} == {CART}, "a resumed session keeps its peer"
    assert any(a.headers["x-resumed"] == "true" for a in answers)
    after = pair.stats()
    assert after["handshakes"] - before["handshakes"] == 10
    resumed = after["handshakes_resumed"] - before["handshakes_resumed"]
    signed = after["operations_ok"] - before["operations_ok"]
    assert resumed == sum(a.headers["x-resumed"] == "true" for a in answers)
    assert signed == 10 - resumed, "what is resumed needs no signature"


def test_without_tickets_every_handshake_is_signed(pair: Pair) -> None:
    answers = [request(pair.port("ticketless"), path="/facts") for _ in range(4)]
    assert {a.headers["x-resumed"] for a in answers} == {"false"}


def test_tls12(pair: Pair) -> None:
    answers = [request(pair.port("tls12"), path="/facts") for _ in range(4)]
    assert {a.headers["x-tls_version"] for a in answers} == {"TLSv1.2"}
    assert {a.headers["x-peer_spiffe_id"] for a in answers} == {CART}


@pytest.mark.parametrize(
    ("cluster", "reason"),
    [
        ("stranger", f"peer {PRICES} is not accepted here"),
        ("misnamed", f"peer {PRICES} is not accepted here"),
        ("foreign", f"no trust bundle for {PRICES}"),
    ],
)
def test_the_wrong_server_is_refused(pair: Pair, cluster: str, reason: str) -> None:
    before = pair.stats()
    assert request(pair.port(cluster)).status == 503
    pair.wait_reason(cluster, reason.replace("_", " "))
    after = pair.stats()
    assert after["peers_rejected"] > before["peers_rejected"]
    assert after["handshakes_failed"] > before["handshakes_failed"]


# ---- with a daemon, server or configuration of their own ----


Start = Callable[..., Pair]


@pytest.fixture
def start(tmp_path: Path, processes: Processes) -> Iterator[Start]:
    """A daemon, a server, and a client with the cluster "prices", one request a connection; `change` edits it."""
    started: list[Services] = []

    def make(change: Callable[[render.Config], None] = lambda _: None, **tls: Any) -> Pair:
        services = Services.make(tmp_path)
        services.daemon.start()
        started.append(services)
        server = mesh.start_server(processes, services)
        port = server.running.ports["server-mtls"]
        cluster = once(render.cluster("prices", "127.0.0.1", port, tls=services.client_tls(**tls)))
        change(cluster)
        return Pair(services, server, mesh.start_client(processes, services, {"prices": cluster}))

    yield make
    processes.check()
    for services in started:
        services.daemon.stop()


def test_a_unix_socket_upstream(tmp_path: Path, processes: Processes) -> None:
    services = Services.make(tmp_path)
    services.daemon.start()
    facts = {**render.direct_response("ok\n"), "response_headers_to_add": mesh.published()}
    listener = node.http(tmp_path, "mtls", services.server_tls(), [facts])
    listener["address"] = render.pipe_address(tmp_path / "prices.sock")
    node.start_envoy(processes, "server", tmp_path, services.bundle("cart"), render.bootstrap([listener]))
    cluster = render.cluster_of("prices", [listener["address"]], tls=services.client_tls(session_tickets=False))
    client = mesh.start_client(processes, services, {"prices": once(cluster)})
    for _ in range(50):
        answer = request(client.running.ports["prices"])
        assert answer.status == 200
        assert answer.headers["x-peer_spiffe_id"] == CART
    services.daemon.stop()


def test_an_internal_listener_is_refused_with_a_reason(tmp_path: Path, processes: Processes) -> None:
    services = Services.make(tmp_path)
    services.daemon.start()
    inner = {
        "name": "inner",
        "internal_listener": {},
        "filter_chains": [{"filters": [render.http_connection_manager([render.direct_response("ok\n")])]}],
    }
    address = {"envoy_internal_address": {"server_listener_name": "inner"}}
    cluster = once(render.cluster_of("prices", [address], tls=services.client_tls()))
    config = render.bootstrap([inner, mesh.plain_listener("prices", tmp_path, "prices")], [cluster])
    config["bootstrap_extensions"] = [
        {
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
            },
        }
    ]
    client = node.start_envoy(processes, "client", tmp_path, services.bundle("cart"), config)
    assert request(client.running.ports["prices"]).status == 503
    wait_for(
        "the reason",
        lambda: any(
            "internal listener" in entry["upstream_failure"].replace("_", " ") for entry in client.access_log("prices")
        ),
    )
    services.daemon.stop()


def test_connect_timeout_while_the_daemon_hangs(start: Start) -> None:
    def impatient(cluster: render.Config) -> None:
        cluster["connect_timeout"] = "0.5s"

    pair = start(impatient, session_tickets=False, operation_timeout_ms=20000)
    assert request(pair.port("prices")).status == 200
    pair.services.daemon.signal(signal.SIGSTOP)
    try:
        assert request(pair.port("prices")).status == 503
        timeouts = "cluster.prices.upstream_cx_connect_timeout"
        assert pair.client.running.stats(timeouts)[timeouts] >= 1
    finally:
        pair.services.daemon.signal(signal.SIGCONT)
    wait_for("requests to work again", lambda: request(pair.port("prices")).status == 200)
    assert pair.stats()["handshakes_aborted"] >= 1


def test_a_daemon_that_comes_later_is_no_error(tmp_path: Path, processes: Processes) -> None:
    services = Services.make(tmp_path)
    services.daemon.start()
    server = mesh.start_server(processes, services)
    assert services.daemon.stop() == 0
    port = server.running.ports["server-mtls"]
    cluster = once(render.cluster("prices", "127.0.0.1", port, tls=services.client_tls(handshake_wait_ms=300)))
    client = mesh.start_client(processes, services, {"prices": cluster})
    assert request(client.running.ports["prices"]).status == 503
    wait_for(
        "the reason",
        lambda: any(
            "daemon unavailable" in entry["upstream_failure"].replace("_", " ") for entry in client.access_log("prices")
        ),
    )
    services.daemon.log_file.unlink()
    services.daemon.start()
    wait_for("a request", lambda: request(client.running.ports["prices"]).status == 200)
    services.daemon.stop()


# ---- rotation, both ends at once ----


def test_a_renewal_of_the_client(start: Start) -> None:
    pair = start(session_tickets=False)
    port = pair.port("prices")
    assert request(port).headers["x-peer_spiffe_id"] == CART
    serial = pair.services.issue("cart", CART)

    def shown() -> int:
        answer = request(port)
        return int(answer.headers["x-peer_serial"], 16) if answer.status == 200 else 0

    wait_for("the new certificate", lambda: shown() == serial)


def test_sessions_outlive_a_renewal(start: Start) -> None:
    pair = start()
    port = pair.port("prices")
    wait_for("a session", lambda: request(port).headers["x-resumed"] == "true")
    updates = pair.client.stats()["identity_updates"]
    pair.services.issue("cart", CART)
    wait_for("the new certificate", lambda: pair.client.stats()["identity_updates"] > updates)
    assert request(port).headers["x-resumed"] == "true"


def test_sessions_never_cross_identities(start: Start) -> None:
    """The name at the daemon stays, who it is does not: what the old one began is not resumed."""
    pair = start()
    port = pair.port("prices")
    for _ in range(5):
        assert request(port).headers["x-peer_spiffe_id"] == CART
    other = CART.replace("cart", "basket")
    updates = pair.client.stats()["identity_updates"]
    pair.services.issue("cart", other)
    wait_for("the new identity", lambda: pair.client.stats()["identity_updates"] > updates)
    seen = wait_for("a request", lambda: a if (a := request(port)).status == 200 else None)
    assert seen is not None
    assert seen.headers["x-peer_spiffe_id"] == other
    for _ in range(10):
        assert request(port).headers["x-peer_spiffe_id"] == other


@pytest.mark.parametrize("bundle_first", [True, False], ids=["trust first", "certificates first"])
def test_a_new_ca_in_both_orders(start: Start, bundle_first: bool) -> None:
    """Trust, then certificates: no request fails. Certificates first: those fail until the trust is there."""
    pair = start(session_tickets=False)
    port, services, new = pair.port("prices"), pair.services, Authority.make("new CA")

    def update(change: Callable[[], object]) -> None:
        before = [one.stats()["identity_updates"] for one in (pair.client, pair.server)]
        change()
        for one, count in zip((pair.client, pair.server), before, strict=True):
            wait_for("the update", lambda one=one, count=count: one.stats()["identity_updates"] > count)

    def trust_both() -> None:
        services.trust(services.authority, new)
        services.daemon.signal(signal.SIGHUP)

    def issue_both() -> None:
        services.issue("prices", PRICES, new)
        services.issue("cart", CART, new)

    assert request(port).status == 200
    for step in (trust_both, issue_both) if bundle_first else (issue_both, trust_both):
        update(step)
        if bundle_first:
            assert request(port).status == 200, f"after {step.__name__}"
    wait_for("requests to work", lambda: request(port).status == 200)
    services.trust(new)
    update(lambda: services.daemon.signal(signal.SIGHUP))
    assert request(port).status == 200, "the old CA is not needed any more"


@pytest.mark.parametrize("who", ["prices", "cart"])
def test_a_session_ends_with_the_trust_in_its_peer(start: Start, who: str) -> None:
    """The ticket would still be good, but one end trusts the CA that the other was verified with no more."""
    pair = start()
    port = pair.port("prices")
    wait_for("a session", lambda: request(port).headers["x-resumed"] == "true")
    end = {"prices": pair.server, "cart": pair.client}[who]
    updates = end.stats()["identity_updates"]
    pair.services.trust(Authority.make("other CA"), who=(who,))
    pair.services.daemon.signal(signal.SIGHUP)
    wait_for("the new trust", lambda: end.stats()["identity_updates"] > updates)
    assert request(port).status == 503
    if who == "prices":
        pair.server.wait_failure("server-mtls", f"peer certificate of {CART}")
    else:
        pair.wait_reason("prices", f"peer certificate of {PRICES}")


def test_tls12_server_that_names_many_authorities(processes: Processes, tmp_path: Path) -> None:
    """With TLS 1.2 a client signs all that was said, here 25 KiB: the names of 300 CAs."""
    services = Services.make(tmp_path)
    services.daemon.start()
    named = tmp_path / "named.pem"
    others = [
        Authority.make(f"{number:04} of the many authorities that this server names").pem for number in range(300)
    ]
    named.write_bytes(services.authority.pem + b"".join(others))
    pair = services.folder / "keys" / "prices"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-tls1_2", "-www", "-Verify", "2"]
    line += ["-cert", str(pair / "p256.crt"), "-key", str(pair / "p256.key"), "-CAfile", str(named)]
    processes.start("server", line)
    tls = services.client_tls(tls_maximum="1.2")
    client = mesh.start_client(processes, services, {"many": render.cluster("many", "127.0.0.1", port, tls=tls)})
    answer = wait_for("an answer", lambda: _answer(client.running.ports["many"]))
    assert answer is not None
    assert b"TLSv1.2" in answer.body
    assert client.stats()["upstream_operations_ok"] >= 1
    services.daemon.stop()


def _answer(port: int) -> mesh.Answer | None:
    answer = request(port)
    return answer if answer.status == 200 else None
