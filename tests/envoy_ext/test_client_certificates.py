"""Client certificates: asked for, verified against the right bundle, and published."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.envoy_ext.conftest import Node
from tests.envoy_ext.node import TLS12, TLS13, TRUST_DOMAIN
from tests.envoy_ext.tls_clients import Client
from tests.offload.key_files import Authority

pytestmark = pytest.mark.envoy

ALICE = f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/alice"


def headers(client: Client, version: ssl.TLSVersion, certificate: Path | None) -> dict[str, str]:
    """The published facts, as the listener's answer tells them. A refused handshake raises."""
    with client.connect(client.context(version, certificate=certificate)) as connection:
        answer = client.get(connection).decode()
    if not answer:
        raise ssl.SSLError("closed without an answer")
    lines = answer.split("\r\n\r\n")[0].split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if ": " in line)


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_verified_peer_is_published(shared: Node, version: ssl.TLSVersion, tmp_path: Path) -> None:
    certificate = shared.material.client_certificate(tmp_path / "alice.pem", [ALICE])
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    for listener in ("required", "optional"):
        facts = headers(shared.envoy.client(listener), version, certificate)
        assert facts["x-peer_spiffe_id"] == ALICE
        assert facts["x-peer_sha256"] == hashlib.sha256(der).hexdigest()
        assert facts["x-peer_serial"] == "1234abcd"


def test_a_resumed_session_still_knows_its_peer(shared: Node, tmp_path: Path) -> None:
    certificate = shared.material.client_certificate(tmp_path / "alice.pem", [ALICE])
    client = shared.envoy.client("required")
    context = client.context(TLS13, certificate=certificate)
    with client.connect(context) as connection:
        client.get(connection)
        session = connection.session
    with client.connect(context, session) as connection:
        answer = client.get(connection).decode()
        assert connection.session_reused
    assert f"x-peer_spiffe_id: {ALICE}" in answer


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_without_a_certificate(shared: Node, version: ssl.TLSVersion) -> None:
    assert "x-peer_spiffe_id" not in headers(shared.envoy.client("optional"), version, None)
    with pytest.raises(ssl.SSLError):
        headers(shared.envoy.client("required"), version, None)
    assert shared.envoy.wait_failure("required", "PEER_DID_NOT_RETURN_A_CERTIFICATE")


@pytest.mark.parametrize(
    ("uris", "valid", "foreign", "reason"),
    [
        ([ALICE], False, False, "certificate has expired"),
        ([ALICE], True, True, "peer certificate of spiffe://"),
        (["spiffe://other.test/a"], True, False, "no trust bundle for spiffe://other.test/a"),
        ([], True, False, "no SPIFFE id"),
        ([ALICE, "https://example.com/"], True, False, "not its only URI"),
        ([ALICE, f"spiffe://{TRUST_DOMAIN}/b"], True, False, "not its only URI"),
    ],
)
@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_refused_peers(
    shared: Node, version: ssl.TLSVersion, uris: Sequence[str], valid: bool, foreign: bool, reason: str, tmp_path: Path
) -> None:
    issuer = Authority.make("another CA") if foreign else None
    certificate = shared.material.client_certificate(tmp_path / "client.pem", uris, valid, issuer)
    before = shared.envoy.stats()["peers_rejected"]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        headers(shared.envoy.client("required"), version, certificate)
    assert shared.envoy.wait_failure("required", reason)
    assert shared.envoy.stats()["peers_rejected"] == before + 1


def test_a_ca_file_needs_no_spiffe_id(shared: Node, tmp_path: Path) -> None:
    certificate = shared.material.client_certificate(tmp_path / "client.pem", [])
    facts = headers(shared.envoy.client("ca_file"), TLS13, certificate)
    assert "x-peer_spiffe_id" not in facts
    assert len(facts["x-peer_sha256"]) == 64


def test_bundles_that_are_not_listed_are_not_used(shared: Node, tmp_path: Path) -> None:
    certificate = shared.material.client_certificate(tmp_path / "alice.pem", [ALICE])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        headers(shared.envoy.client("other"), TLS13, certificate)
    assert shared.envoy.wait_failure("other", f"no trust bundle for {ALICE}")


def test_facts_of_the_handshake(shared: Node) -> None:
    facts = headers(shared.envoy.client("facts", "web.test"), TLS13, None)
    assert facts["x-identity"] == "web"
    assert facts["x-server_name"] == "web.test"
    assert facts["x-tls_version"] == "TLSv1.3"
    assert facts["x-cipher"].startswith("TLS_")
    assert facts["x-group"] in ("X25519", "P-256")
    assert facts["x-resumed"] == "false"
    assert facts["x-key_type"] == "ec"
    assert facts["x-backend"] in ("software", "ifma8")
    assert 1 <= int(facts["x-batch_size"]) <= 8
    assert int(facts["x-operation_us"]) > 0
    assert "x-alpn" not in facts  # Python's client offered none
