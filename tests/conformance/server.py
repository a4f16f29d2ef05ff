"""A server of tlslite-ng for the other direction: our upstream socket is the client, and Envoy asks it for a page."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from typing import Any

from tlslite.utils.keyfactory import parsePEMKey
from tlslite.x509certchain import X509CertChain

from tests.conformance.client import outcome, settings
from tests.conformance.rig import Target
from tests.conformance.scripted import TIMEOUT, Hooks, Scripted

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n"
REFUSED = 503  # what the caller is told by Envoy
TEXTS = {(3, 3): "TLS 1.2", (3, 4): "TLS 1.3"}


def serve(server: Scripted) -> str:
    """One request, answered."""
    received = server.read(min=1)
    if not received:
        return "close_notify"
    assert received.startswith(b"GET "), received
    server.write(ANSWER)
    return TEXTS[server.version]


class _Caller(threading.Thread):
    """The application in front of the Envoy."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.status = 0

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        try:
            connection.request("GET", "/")
            self.status = connection.getresponse().status
        except OSError:
            self.status = -1
        finally:
            connection.close()


def talk(
    target: Target,
    version: str,
    hooks: Hooks | None = None,
    then: Callable[[Any], str] = serve,
    *,
    identity: str = "server",
    asks: bool = False,
    **more: Any,
) -> str:
    """What our socket made of this server, as the server saw it; and the caller must have been told the same.

    A server that `asks` gets a client certificate, whose signature the daemon made.
    """
    caller = _Caller(target.upstream.calls)
    caller.start()
    connected, _ = target.upstream.listening.accept()
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = Scripted(connected, hooks)
    chain, pair = X509CertChain(), target.upstream.pair(identity)
    chain.parsePemList(pair.with_suffix(".crt").read_text())
    key = parsePEMKey(pair.with_suffix(".key").read_text(), private=True)

    def step() -> str:
        made = settings(version, ticket_count=0, **more)
        alpn = [bytearray(b"http/1.1")]
        server.handshakeServer(certChain=chain, privateKey=key, settings=made, alpn=alpn, reqCert=asks)
        if asks and server.session.clientCertChain is None:
            return "no client certificate"
        return then(server)

    try:
        seen = outcome(step)
    finally:
        server.wire.close()
        caller.join()
    served = seen in TEXTS.values()
    if caller.status != (200 if served else REFUSED):
        return f"{seen}, and the caller has {caller.status}"
    return seen
