"""Half-close through tcp_proxy: one direction ends, the other goes on."""

from __future__ import annotations

import os
import ssl
import subprocess

import pytest

from deploy.node.waiting import wait_for
from tests.envoy_ext import backends
from tests.envoy_ext.conftest import Node
from tests.envoy_ext.node import TLS12, TLS13

pytestmark = pytest.mark.envoy


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
def test_the_client_ends_first(shared: Node, version: ssl.TLSVersion, size: int) -> None:
    """Python's ssl cannot half-close (unwrap waits for the other side's end), so the records go through memory."""
    client = shared.envoy.client("reverse")
    body = os.urandom(size)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.context(version).wrap_bio(incoming, outgoing, server_hostname=client.name)
    received = bytearray()
    with client.raw() as raw:

        def step(action: object) -> bool:
            """Runs one call; False when it needs more from the network."""
            try:
                action()  # type: ignore[operator]
            except ssl.SSLWantReadError:
                return False
            finally:
                if data := outgoing.read():
                    raw.sendall(data)
            return True

        def fetch() -> None:
            incoming.write(data) if (data := raw.recv(65536)) else incoming.write_eof()

        while not step(tls.do_handshake):
            fetch()
        for at in range(0, size, 16384):
            assert step(lambda at=at: tls.write(body[at : at + 16384]))
        step(tls.unwrap)  # sends close_notify; the other direction stays open
        while True:
            try:
                received += tls.read(65536)
            except ssl.SSLWantReadError:
                fetch()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
    assert bytes(received) == bytes(reversed(body))


def test_the_server_ends_first(shared: Node) -> None:
    client = shared.envoy.client("farewell")
    before = len(backends.FarewellAtOnce.received)
    connection = client.connect()
    assert connection.recv(100) == b"farewell"
    assert connection.recv(100) == b"", "close_notify has come"
    connection.sendall(bytes(100_000))
    connection.close()
    wait_for("the server behind to see the end", lambda: len(backends.FarewellAtOnce.received) > before)
    assert backends.FarewellAtOnce.received[-1] == 100_000


def test_openssl_sees_a_proper_end(shared: Node) -> None:
    """No truncation: the TLS stream ends with close_notify."""
    client = shared.envoy.client("https")
    line = [
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{client.port}",
        "-quiet",
        "-ign_eof",
        "-CAfile",
        str(client.ca),
    ]
    request = b"GET /hello HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n"
    done = subprocess.run(line, input=request, capture_output=True, check=False, timeout=30)
    assert done.stdout.endswith(b"hello\n")
    assert b"unexpected eof" not in done.stderr
