"""What the rest of Envoy is told of a connection: filter state, the log, the caller's header; of plaintext too."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import authorization, render
from envoy_ext.settings import FILTER_STATE_KEYS, SpiffeMatch
from tests.envoy_ext import mesh, node
from tests.envoy_ext.conftest import Behind
from tests.envoy_ext.mesh import PRICES, Services
from tests.envoy_ext.node import TLS12, TLS13, EnvoyNode
from tests.envoy_ext.test_rejected_configs import Validator
from tests.envoy_ext.test_verification import ALICE, Certificate
from tests.envoy_ext.tls_clients import Client

pytestmark = pytest.mark.envoy

FORGED = {"x-forwarded-client-cert": "By=spiffe://mesh.test/x;Hash=00;URI=spiffe://mesh.test/admin"}
SHOP = {"shop": [SpiffeMatch("prefix", "spiffe://mesh.test/ns/shop")]}
MALLORY = "spiffe://mesh.test/mallory"


@dataclass(frozen=True)
class Told:
    envoy: EnvoyNode
    services: Services

    def client(self, listener: str) -> Client:
        return self.envoy.client(listener, "prices.test")

    def headers(self, listener: str, certificate: Path | None, sent: Mapping[str, str] = FORGED) -> dict[str, str]:
        """What the server behind Envoy was told, by the echo of its request's headers."""
        client = self.client(listener)
        connection = http.client.HTTPConnection("prices.test", client.port)
        connection.sock = client.connect(client.context(TLS13, certificate=certificate))
        return _asked(connection, sent)

    def plaintext_headers(self, listener: str, sent: Mapping[str, str] = FORGED) -> dict[str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.client(listener).port, timeout=mesh.REQUEST_SECONDS)
        return _asked(connection, sent)


def _asked(connection: http.client.HTTPConnection, sent: Mapping[str, str]) -> dict[str, str]:
    try:
        connection.request("GET", "/", headers=dict(sent))
        answer = connection.getresponse()
        lines = answer.read().decode().splitlines()
        told = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        return told | {"status": str(answer.status)}
    finally:
        connection.close()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, behind: Behind) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("told")
    services = Services.make(folder)
    services.daemon.start()
    echo = render.route_to_cluster("http") | authorization.forwarded_client_cert()
    headers = [{"header": {"key": f"x-{key}", "value": render.filter_state(key)}} for key in FILTER_STATE_KEYS]
    facts = {**render.direct_response("ok\n"), "response_headers_to_add": headers}

    def permissive(name: str, *filters: render.Config) -> render.Config:
        secure = render.http_connection_manager([echo], stat_prefix=f"{name}-tls", http_filters=filters)
        plain = render.http_connection_manager(
            [echo], stat_prefix=f"{name}-plain", http_filters=filters, encrypted=False
        )
        chains = render.permissive_filter_chains(services.server_tls(client_certificate="optional"), [secure], [plain])
        return render.listener(name, 0, chains, host="127.0.0.1")

    everything = render.access_log(str(folder / "facts.log"), render.access_log_fields(FILTER_STATE_KEYS))
    greeting = render.filter_chain(
        services.server_tls(peer_spiffe_ids=tuple(SHOP["shop"])), [render.tcp_proxy("farewell")]
    )
    listeners = [
        permissive("permissive"),
        permissive("guarded", authorization.rbac_filter("http", SHOP)),
        render.http_listener("facts", 0, services.server_tls(), [facts], host="127.0.0.1", access_logs=[everything]),
        render.listener("greeting", 0, [greeting], host="127.0.0.1"),
    ]
    with Processes(folder) as processes:
        config = render.bootstrap(listeners, behind.clusters())
        yield Told(node.start_envoy(processes, "envoy", folder, services.bundle("prices"), config), services)
        processes.check()
    services.daemon.stop()


@pytest.fixture
def alice(told: Told, tmp_path: Path) -> Path:
    return Certificate(serial=0xA11CE).write(tmp_path / "alice.pem", told.services.authority)


def digest_of(certificate: Path) -> str:
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    return hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize("resumed", [False, True])
def test_every_fact(told: Told, alice: Path, resumed: bool) -> None:
    client = told.client("facts")
    context = client.context(TLS13, alpn=["http/1.1"], certificate=alice)
    session = None
    for _ in range(1 + resumed):
        with client.connect(context, session) as connection:
            answer = client.get(connection).decode()
            session = connection.session
    facts = {key: _header(answer, f"x-{key}") for key in FILTER_STATE_KEYS}
    signed = {key: facts.pop(key) for key in ("key_type", "backend", "batch_size", "operation_us")}
    assert facts == {
        "peer_spiffe_id": ALICE,
        "peer_sha256": digest_of(alice),
        "peer_serial": "0a11ce",
        "xfcc": f"By={PRICES};Hash={digest_of(alice)};URI={ALICE}",
        "identity": "prices",
        "local_spiffe_id": PRICES,
        "server_name": "prices.test",
        "tls_version": "TLSv1.3",
        "cipher": facts["cipher"],
        "group": facts["group"],
        "alpn": "http/1.1",
        "resumed": str(resumed).lower(),
    }
    assert facts["cipher"].startswith("TLS_")
    assert facts["group"] in ("X25519", "P-256")
    if resumed:
        assert set(signed.values()) == {""}, "a resumed handshake signs nothing"
    else:
        assert signed["key_type"] == "ec"
        assert signed["backend"] in ("software", "ifma8")
        assert 1 <= int(signed["batch_size"]) <= 8
        assert int(signed["operation_us"]) > 0
    logged = wait_for("the log", lambda: told.envoy.access_log("facts"))
    assert set(FILTER_STATE_KEYS) <= set(logged[-1])
    assert logged[-1]["peer_spiffe_id"] == ALICE
    assert logged[-1]["peer_serial"] == "0a11ce"


def _header(answer: str, name: str) -> str:
    lines = [line for line in answer.split("\r\n") if line.startswith(f"{name}: ")]
    return lines[0].partition(": ")[2] if lines else ""


def test_tls12_tells_the_same(told: Told, alice: Path) -> None:
    client = told.client("facts")
    with client.connect(client.context(TLS12, certificate=alice)) as connection:
        answer = client.get(connection).decode()
    assert _header(answer, "x-tls_version") == "TLSv1.2"
    assert _header(answer, "x-cipher").startswith("TLS_ECDHE_ECDSA_WITH_")
    assert _header(answer, "x-xfcc") == f"By={PRICES};Hash={digest_of(alice)};URI={ALICE}"


def test_a_forged_header_is_replaced(told: Told, alice: Path) -> None:
    headers = told.headers("permissive", alice, FORGED | {"x-forwarded-proto": "http"})
    assert headers["x-forwarded-client-cert"] == f"by={PRICES};hash={digest_of(alice)};uri={ALICE}".lower()
    assert headers["x-forwarded-proto"] == "https"


def test_without_a_peer_there_is_no_header(told: Told) -> None:
    assert "x-forwarded-client-cert" not in told.headers("permissive", None)


def test_plaintext_is_told_apart(told: Told) -> None:
    headers = told.plaintext_headers("permissive", FORGED | {"x-forwarded-proto": "https"})
    assert headers["status"] == "200"
    assert "x-forwarded-client-cert" not in headers
    assert headers["x-forwarded-proto"] == "http"


def test_plaintext_is_nobody_to_rbac(told: Told, alice: Path, tmp_path: Path) -> None:
    assert told.headers("guarded", alice)["status"] == "200"
    mallory = Certificate(uris=(MALLORY,)).write(tmp_path / "mallory.pem", told.services.authority)
    assert told.headers("guarded", mallory)["status"] == "403"
    assert told.headers("guarded", None)["status"] == "403"
    assert told.plaintext_headers("guarded")["status"] == "403"


def test_who_speaks_first_is_guarded_by_the_handshake(told: Told, alice: Path, tmp_path: Path) -> None:
    """A server that greets: nobody who is not accepted hears a word."""
    client = told.client("greeting")
    with client.connect(client.context(TLS13, certificate=alice)) as connection:
        assert connection.recv(100) == b"farewell"
    mallory = Certificate(uris=(MALLORY,)).write(tmp_path / "mallory.pem", told.services.authority)
    with (
        pytest.raises(OSError, match="ACCESS_DENIED"),
        client.connect(client.context(TLS13, certificate=mallory)) as connection,
    ):
        connection.recv(100)  # a byte of the greeting would be no error


def test_envoy_accepts_the_recipes(envoy_binary: Path, tmp_path: Path, told: Told) -> None:
    tls = told.services.server_tls()
    guard, closed = authorization.rbac_filter("http", SHOP), authorization.rbac_filter("network", {})
    route = render.direct_response("ok\n") | authorization.forwarded_client_cert()
    manager = render.http_connection_manager([route], http_filters=[guard])
    plain = render.http_connection_manager([route], http_filters=[guard], encrypted=False)
    log = render.access_log("/dev/null", render.access_log_fields(FILTER_STATE_KEYS))
    listeners = [
        render.listener("one", 1, render.permissive_filter_chains(tls, [closed, manager], [plain]), access_logs=[log])
    ]
    accepted, said = Validator(envoy_binary, tmp_path).run(render.bootstrap(listeners))
    assert accepted, said
