"""Servers that a cluster refuses: what they are told, what is logged and counted. The server is Python's own TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploy.node.processes import Processes
from deploy.node.waiting import wait_for
from envoy_ext import render
from envoy_ext.settings import SpiffeMatch
from tests.envoy_ext import mesh
from tests.envoy_ext.mesh import Services
from tests.envoy_ext.node import EnvoyNode
from tests.envoy_ext.test_verification import HOUR, NOW, Certificate, revocation_list
from tests.envoy_ext.test_verification_chains import authority
from tests.offload.key_files import Authority

pytestmark = pytest.mark.envoy

SHOP = "spiffe://mesh.test/ns/shop/sa/prices"
REVOKED = 0xBAD


class Server:
    """Answers one request a connection, with the certificate that it has at the moment; keeps what went wrong."""

    def __init__(self) -> None:
        self.certificate: Path | None = None
        self.version = ssl.TLSVersion.TLSv1_3
        self.errors: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                raw, _ = self._listening.accept()
            except OSError:
                return  # closed
            raw.settimeout(mesh.REQUEST_SECONDS)
            try:
                self._serve(raw)
            except OSError as error:
                self.errors.append(str(error))
            finally:
                raw.close()

    def _serve(self, raw: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = self.version
        assert self.certificate is not None
        context.load_cert_chain(self.certificate)
        with context.wrap_socket(raw, server_side=True) as connection:
            received = b""
            while b"\r\n\r\n" not in received:
                if not (piece := connection.recv(65536)):
                    return
                received += piece
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n")

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@dataclass(frozen=True)
class Calling:
    envoy: EnvoyNode
    services: Services
    server: Server

    def call(self, cluster: str, certificate: Path) -> int:
        self.server.certificate = certificate
        return mesh.request(self.envoy.running.ports[cluster]).status

    def reasons(self, cluster: str) -> list[str]:
        return [(entry["upstream_failure"] or "").replace("_", " ") for entry in self.envoy.access_log(cluster)]


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calling]:
    folder = tmp_path_factory.mktemp("calling")
    services, server = Services.make(folder), Server()
    services.daemon.start()
    crl = folder / "revoked.pem"
    crl.write_bytes(revocation_list(services.authority, [REVOKED]))
    shop = (SpiffeMatch("prefix", "spiffe://mesh.test/ns/shop"),)
    clusters = {
        "any": render.cluster("any", "127.0.0.1", server.port, tls=services.client_tls(peer_spiffe_ids=shop)),
        "crl": render.cluster(
            "crl", "127.0.0.1", server.port, tls=services.client_tls(peer_spiffe_ids=shop, crl_file=crl)
        ),
    }
    with Processes(folder) as processes:
        yield Calling(mesh.start_client(processes, services, clusters), services, server)
        processes.check()
    services.daemon.stop()
    server.close()


@pytest.mark.parametrize("cluster", ["any", "crl"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_good_server(calling: Calling, tmp_path: Path, cluster: str, version: ssl.TLSVersion) -> None:
    calling.server.version = version
    good = Certificate(uris=(SHOP,)).write(tmp_path / "good.pem", calling.services.authority)
    assert calling.call(cluster, good) == 200
    between = authority("between", calling.services.authority)
    if cluster == "any":
        chain = Certificate(uris=(SHOP,)).write(tmp_path / "chain.pem", between, [between.certificate])
        assert calling.call(cluster, chain) == 200


REFUSED: Sequence[tuple[str, Certificate, str, str, str]] = [
    # cluster, certificate, alert, reason, counter
    ("any", Certificate(uris=(SHOP,), ends=NOW - HOUR / 2), "CERTIFICATE_EXPIRED", "has expired", "expired"),
    ("any", Certificate(uris=(SHOP,), begins=NOW + HOUR / 2), "CERTIFICATE_EXPIRED", "not yet valid", "expired"),
    ("any", Certificate(uris=(SHOP,), is_ca=True), "UNSUPPORTED_CERTIFICATE", "is a CA certificate", "unsuitable"),
    (
        "any",
        Certificate(uris=(SHOP,), purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,)),
        "UNSUPPORTED_CERTIFICATE",
        "purpose",
        "unsuitable",
    ),
    ("any", Certificate(uris=(SHOP, "https://a/")), "BAD_CERTIFICATE", "not its only URI", "spiffe_id"),
    ("any", Certificate(uris=(SHOP + "/",)), "BAD_CERTIFICATE", "empty path segment", "spiffe_id"),
    ("any", Certificate(uris=("spiffe://other.test/a",)), "UNKNOWN_CA", "no trust bundle for", "unknown_ca"),
    (
        "any",
        Certificate(uris=("spiffe://mesh.test/ns/shopping",)),
        "ACCESS_DENIED",
        "is not accepted here",
        "not_accepted",
    ),
    ("crl", Certificate(uris=(SHOP,), serial=REVOKED), "CERTIFICATE_REVOKED", "revoked", "revoked"),
]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("cluster", "certificate", "alert", "reason", "counter"), REFUSED, ids=[f"{r[4]}: {r[3]}" for r in REFUSED]
)
def test_refused(
    calling: Calling,
    tmp_path: Path,
    version: ssl.TLSVersion,
    cluster: str,
    certificate: Certificate,
    alert: str,
    reason: str,
    counter: str,
) -> None:
    calling.server.version = version
    refuses(calling, cluster, certificate.write(tmp_path / "server.pem", calling.services.authority), alert)
    wait_for("the reason in the log", lambda: any(reason in each for each in calling.reasons(cluster)))
    assert calling.envoy.stats()[f"upstream_peers_rejected_{counter}"] >= 1


def test_a_foreign_ca(calling: Calling, tmp_path: Path) -> None:
    refuses(
        calling, "any", Certificate(uris=(SHOP,)).write(tmp_path / "a.pem", Authority.make("foreign")), "UNKNOWN_CA"
    )


def refuses(calling: Calling, cluster: str, certificate: Path, alert: str) -> None:
    """The request fails, the server is told why, and it is counted once for each connection that Envoy tried."""
    errors, before = len(calling.server.errors), calling.envoy.stats()
    assert calling.call(cluster, certificate) == 503
    wait_for(alert, lambda: any(alert in error for error in calling.server.errors[errors:]))
    after = calling.envoy.stats()
    by_reason = [key for key in after if key.startswith("upstream_peers_rejected_")]
    refused = after["upstream_peers_rejected"] - before["upstream_peers_rejected"]
    assert refused >= 1
    assert sum(after[key] - before[key] for key in by_reason) == refused
