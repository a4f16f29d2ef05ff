"""The client of the checks, and what the server made of it, in words."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

from tlslite.constants import AlertDescription, AlertLevel, ContentType, HandshakeType
from tlslite.errors import TLSAbruptCloseError, TLSLocalAlert, TLSRemoteAlert
from tlslite.handshakesettings import HandshakeSettings
from tlslite.messages import Certificate, ServerHello
from tlslite.utils.keyfactory import parsePEMKey
from tlslite.x509certchain import X509CertChain

from tests.conformance.rig import SERVER_NAME, Target
from tests.conformance.scripted import TIMEOUT, Hooks, Scripted, Wire

REQUEST = f"GET / HTTP/1.1\r\nhost: {SERVER_NAME}\r\n\r\n".encode()
VERSIONS = {"1.2": (3, 3), "1.3": (3, 4)}
CLOSE_NOTIFY = b"\x01\x00"


class Client(Scripted):
    """It keeps what the server said."""

    def __init__(self, port: int, hooks: Hooks | None = None) -> None:
        connected = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(connected, hooks)
        self.server_hello: ServerHello | None = None
        self.server_key: Any = None

    def _getMsg(self, *arguments: Any, **more: Any) -> Iterator[Any]:
        for result in super()._getMsg(*arguments, **more):
            if isinstance(result, ServerHello):
                self.server_hello = result
            if isinstance(result, Certificate):
                self.server_key = result.cert_chain.getEndEntityPublicKey()
            yield result


def settings(version: str, **more: Any) -> HandshakeSettings:
    made = HandshakeSettings()
    made.minVersion = made.maxVersion = VERSIONS[version]
    made.versions = [VERSIONS[version]]
    made.keyShares = ["x25519"] if version == "1.3" else []
    made.eccCurves = ["x25519", "secp256r1"]
    made.cipherNames = ["aes128gcm", "aes256gcm", "chacha20-poly1305"]  # the first is the quickest in Python
    made.useEncryptThenMAC = False
    made.use_heartbeat_extension = False
    made.certificate_compression_send = []  # tlslite-ng would compress without being offered to
    for name, value in more.items():
        setattr(made, name, value)
    return made


def alert_text(level: int, description: int) -> str:
    name = AlertDescription.toRepr(description) or str(description)
    return f"alert {name}" if level == AlertLevel.fatal else str(name)


def connect(client: Client, target: Target, made: HandshakeSettings, mtls: bool = False) -> None:
    chain = key = None
    if mtls:
        chain = X509CertChain()
        chain.parsePemList(target.client_certificate.read_text())
        key = parsePEMKey(target.client_key.read_text(), private=True)
    client.handshakeClientCert(chain, key, settings=made, serverName=SERVER_NAME)


def request(client: Client) -> str:
    """One request. The version of TLS that carried the answer, or how the connection ended."""
    client.write(REQUEST)
    return answer(client)


def answer(client: Client) -> str:
    received = client.read(min=1)
    if not received:
        return "close_notify"
    if not received.startswith(b"HTTP/1.1 200 "):
        return f"answer {received[:60]!r}"
    return {(3, 3): "TLS 1.2", (3, 4): "TLS 1.3"}[client.version]


def outcome(step: Callable[[], str]) -> str:
    """What came of it: the step's own words, an alert, or how the connection ended."""
    try:
        return step()
    except TLSRemoteAlert as remote:
        return alert_text(remote.level, remote.description)
    except TLSLocalAlert as local:
        return f"the client refuses: {local}"
    except TLSAbruptCloseError:
        return "closed"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "silence"


def plain_answer(wire: Wire) -> str:
    """The first record that comes, when nothing is encrypted yet."""

    def received(size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := wire.recv(size - len(data))):
            data += piece
        return data

    def step() -> str:
        header = received(5)
        if len(header) < 5:
            return "closed"
        body = received(int.from_bytes(header[3:5], "big"))
        if header[0] == ContentType.alert:
            return alert_text(body[0], body[1])
        if header[0] == ContentType.handshake and body[0] == HandshakeType.server_hello:
            return "ServerHello"
        return f"record {header.hex()}"

    return outcome(step)


def send_plainly(target: Target, *pieces: bytes, end: bool = False) -> str:
    """Bytes, with FIN behind them where it is the `end`; the first record that comes."""
    wire = Wire(socket.create_connection(("127.0.0.1", target.port), timeout=TIMEOUT))
    try:
        for piece in pieces:
            wire.sendall(piece)
        if end:
            wire.finish()
        return plain_answer(wire)
    finally:
        wire.close()


def talk(
    target: Target,
    version: str,
    hooks: Hooks | None = None,
    then: Callable[[Client], str] = request,
    *,
    mtls: bool = False,
    port: int | None = None,
    **more: Any,
) -> str:
    """A handshake with these hooks, then a request (or `then`): what came of it."""
    client = Client(port or (target.mtls if mtls else target.port), hooks)

    def step() -> str:
        connect(client, target, settings(version, **more), mtls)
        return then(client)

    try:
        return outcome(step)
    finally:
        client.wire.close()
