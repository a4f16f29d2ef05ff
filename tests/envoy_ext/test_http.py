"""HTTP through the module: protocols, versions, key types, and bodies larger than every buffer."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from tests.envoy_ext.conftest import Node
from tests.envoy_ext.node import TLS12, TLS13
from tests.envoy_ext.tls_clients import Client, key_type_of

pytestmark = pytest.mark.envoy

TEN_MB = 10 * 1024 * 1024


@pytest.mark.parametrize("name", ["web.test", "old.test"])
@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_one_request(shared: Node, version: ssl.TLSVersion, name: str) -> None:
    client = shared.envoy.client("https", name)
    with client.connect(client.context(version)) as connection:
        assert connection.version() == ("TLSv1.2" if version == TLS12 else "TLSv1.3")
        assert client.get(connection, "/hello").endswith(b"hello\n")


@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
def test_alpn_is_negotiated(shared: Node, alpn: str) -> None:
    client = shared.envoy.client("https")
    with client.connect(client.context(alpn=[alpn])) as connection:
        assert connection.selected_alpn_protocol() == alpn


def test_without_common_alpn_there_is_none(shared: Node) -> None:
    client = shared.envoy.client("https")
    with client.connect(client.context(alpn=["spdy/3"])) as connection:
        assert connection.selected_alpn_protocol() is None
        assert b" 200 " in client.get(connection, "/hello")


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_ten_megabytes_both_ways(shared: Node, protocol: str, tls: str, tmp_path: Path) -> None:
    body = os.urandom(TEN_MB)
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(body)
    client = shared.envoy.client("https")
    options = ["--data-binary", f"@{sent}", "--output", str(received), "--tls-max", tls, f"--tlsv{tls}"]
    # Without "Expect: 100-continue", which the server behind does not speak.
    done = client.curl(protocol, "-H", "expect:", *options, "--write-out", "%{http_version} %{http_code}")
    assert done.stdout.decode() == ("2 200" if protocol == "--http2" else "1.1 200"), done.stderr.decode()
    assert received.read_bytes() == body


def test_many_requests_on_one_http2_connection(shared: Node) -> None:
    client = shared.envoy.client("https")
    before = shared.envoy.stats()["handshakes"]
    urls = [f"https://web.test:{client.port}/hello"] * 99
    done = client.curl("--http2", *urls, path="/hello")
    assert done.stdout == b"hello\n" * 100, done.stderr.decode()
    assert shared.envoy.stats()["handshakes"] == before + 1


def test_upstream_sees_https(shared: Node) -> None:
    done = shared.envoy.client("https").curl("--http1.1")
    assert b"x-forwarded-proto: https" in done.stdout


@pytest.mark.parametrize(
    ("sigalgs", "expected"), [("RSA-PSS+SHA256", "rsa"), ("ECDSA+SHA256", "secp256r1"), (None, "secp256r1")]
)
def test_key_type_follows_the_client(shared: Node, sigalgs: str | None, expected: str) -> None:
    """RSA and ECDSA for one name: elliptic curves when the client can, RSA when it cannot."""
    client = shared.envoy.client("https")
    if sigalgs is None:
        with client.connect() as connection:
            assert key_type_of(connection) == expected
        return
    # Python's ssl cannot choose signature algorithms in 3.11: the load generator can, and names what it got.
    wanted = {"RSA-PSS+SHA256": "rsa_pss_rsae_sha256", "ECDSA+SHA256": "ecdsa_secp256r1_sha256"}[sigalgs]
    report = client.load(count=3, concurrency=1, sigalgs=wanted, sni="web.test", get="/hello", tls="1.3")
    assert (report["handshakes"], report["failures"]) == (3, 0)


def test_tls12_cipher_decides_the_key_type(shared: Node) -> None:
    client = shared.envoy.client("https")
    for cipher, expected in (("ECDHE-RSA-AES128-GCM-SHA256", "rsa"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "secp256r1")):
        with client.connect(client.context(TLS12, ciphers=cipher)) as connection:
            assert key_type_of(connection) == expected
            assert b"hello" in client.get(connection, "/hello")


def test_other_key_types(shared: Node) -> None:
    for name, expected in (("shop.test", "secp384r1"), ("edge.test", "ed25519")):
        client: Client = shared.envoy.client("https", name)
        with client.connect(client.context(TLS13)) as connection:
            assert key_type_of(connection) == expected
            assert b"hello" in client.get(connection, "/hello")
