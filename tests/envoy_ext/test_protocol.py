"""What the configuration allows, and what happens to clients that want something else."""

from __future__ import annotations

import ssl
import subprocess

import pytest

from tests.envoy_ext.conftest import Node
from tests.envoy_ext.node import TLS12, TLS13
from tests.envoy_ext.tls_clients import common_name

pytestmark = pytest.mark.envoy


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("web.test", "web"),
        ("WEB.test", "web"),
        ("shop.test", "shop"),
        ("de.shop.test", "shop"),
        ("old.test", "old"),
        ("unknown.test", "web"),  # the first identity
        ("a.b.shop.test", "web"),  # a wildcard is one label
        (None, "web"),
    ],
)
def test_server_name_chooses_the_identity(shared: Node, asked: str | None, shown: str) -> None:
    client = shared.envoy.client("https", asked)
    with client.connect(client.context(verify=False)) as connection:
        assert common_name(connection) == shown


@pytest.mark.parametrize("asked", ["unknown.test", None])
def test_unknown_server_names_can_be_rejected(shared: Node, asked: str | None) -> None:
    client = shared.envoy.client("strict", asked)
    with pytest.raises(ssl.SSLError):
        client.connect(client.context(verify=False))
    reason = "no identity for server name 'unknown.test'" if asked else "client sent no server name"
    assert shared.envoy.wait_failure("strict", reason)


def test_minimum_and_maximum_version(shared: Node) -> None:
    for listener, refused in (("only12", TLS13), ("only13", TLS12)):
        client = shared.envoy.client(listener)
        with pytest.raises(ssl.SSLError):
            client.connect(client.context(refused))
        with client.connect() as connection:
            assert connection.version() == ("TLSv1.2" if listener == "only12" else "TLSv1.3")
    assert shared.envoy.wait_failure("only13", "UNSUPPORTED_PROTOCOL")


def test_cipher_suites_and_groups(shared: Node) -> None:
    with shared.envoy.client("only12").connect() as connection:
        cipher = connection.cipher()
        assert cipher is not None
        assert cipher[0] == "ECDHE-RSA-AES128-GCM-SHA256"
    report = shared.envoy.client("only13").load(count=1, tls="1.3", groups="X25519:P-384")
    assert report["negotiated"]["group"] == "P-384"
    report = shared.envoy.client("only13").load(count=1, tls="1.3", groups="X25519")
    assert report["failures"] == 1
    assert shared.envoy.wait_failure("only13", "NO_SHARED_GROUP")


@pytest.mark.parametrize("group", ["X25519", "X25519MLKEM768"])
def test_key_exchange_with_a_peer_that_has_boringssls_own(shared: Node, group: str) -> None:
    """More handshakes than the module makes key pairs at once; tlsload's X25519 is not the module's."""
    report = shared.envoy.client("ticketless").load(count=20, concurrency=4, tls="1.3", groups=group)
    assert report["failures_by_reason"] == {}
    assert report["handshakes"] == 20
    assert report["negotiated"]["group"] == group


def test_rsa_key_exchange_where_the_daemon_allows_it(shared: Node) -> None:
    client = shared.envoy.client("rsakx", "old.test")
    with client.connect(client.context(TLS12, ciphers="AES128-GCM-SHA256")) as connection:
        cipher = connection.cipher()
        assert cipher is not None
        assert cipher[0] == "AES128-GCM-SHA256"
        assert b"hello" in client.get(connection, "/hello")


def test_a_tls13_only_key_is_not_offered_to_tls12(shared: Node) -> None:
    client = shared.envoy.client("https", "shop.test")
    with pytest.raises(ssl.SSLError, match=r"VERSION|version"):
        client.connect(client.context(TLS12))
    with client.connect(client.context(TLS13)) as connection:
        assert connection.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("name", "hash_name"), [("web.test", "SHA256"), ("web.test", "SHA384"), ("web.test", "SHA512")]
)
def test_tls12_ecdsa_with_the_hash_that_the_client_offers(shared: Node, name: str, hash_name: str) -> None:
    """In TLS 1.2 the hash does not belong to the curve: a P-256 key signs with each, as in stock Envoy."""
    client = shared.envoy.client("https", name)
    line = ["openssl", "s_client", "-connect", f"127.0.0.1:{client.port}", "-servername", name, "-tls1_2"]
    line += ["-sigalgs", f"ECDSA+{hash_name}", "-CAfile", str(client.ca), "-verify_return_error"]
    ran = subprocess.run(line, input="", capture_output=True, text=True, check=False, timeout=30)
    assert f"Peer signing digest: {hash_name}" in ran.stdout, ran.stdout + ran.stderr
    assert "Peer signature type: ECDSA" in ran.stdout


def test_garbage_instead_of_tls(shared: Node) -> None:
    client = shared.envoy.client("https")
    for garbage in (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", bytes(100), b"\x16\x03\x01\xff\xff" + bytes(65535)):
        with client.raw() as raw:
            raw.sendall(garbage)
            answer = raw.recv(1000)
            assert answer == b"" or answer[0] == 21, "an alert, or the end"
    with client.connect() as connection:
        assert b"hello" in client.get(connection, "/hello")


def test_an_identity_the_daemon_does_not_have(shared: Node) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shared.envoy.client("nobody").connect()
    assert "NOT FOUND" in shared.envoy.wait_failure("nobody", "daemon refused identity 'nobody'")
