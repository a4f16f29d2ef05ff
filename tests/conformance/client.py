"""A tlslite-ng client whose messages a check may change, split, leave out or add to, and what the server made of it.

tlslite-ng (LGPL 2.1) is a second, independent TLS: nothing of BoringSSL's or OpenSSL's view of the protocol is in it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tlslite.constants import AlertDescription, AlertLevel, ContentType, HandshakeType
from tlslite.errors import TLSAbruptCloseError, TLSLocalAlert, TLSRemoteAlert
from tlslite.handshakesettings import HandshakeSettings
from tlslite.messages import Certificate, Message, ServerHello
from tlslite.tlsconnection import TLSConnection
from tlslite.utils.keyfactory import parsePEMKey
from tlslite.x509certchain import X509CertChain

from tests.conformance.rig import SERVER_NAME, Target

TIMEOUT = 10.0
SILENCE = 0.4  # how long a server that should say nothing is listened to
RECORD = 2**14
REQUEST = f"GET / HTTP/1.1\r\nhost: {SERVER_NAME}\r\n\r\n".encode()
VERSIONS = {"1.2": (3, 3), "1.3": (3, 4)}
CLOSE_NOTIFY = b"\x01\x00"

Hook = Callable[["Client", Any], None]
Hooks = Mapping[str, Hook]


class Wire:
    """The socket, which does not mind that the server has closed: what the server thought, its alert tells."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def sendall(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def send(self, data: bytes) -> int:
        self.sendall(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        return self.socket.recv(size)

    def close(self) -> None:
        self.socket.close()

    def finish(self) -> None:
        """FIN, without a word of TLS."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # the server has already reset the connection
                raise


class _Captured:
    """In place of a socket: keeps what is sent."""

    def __init__(self) -> None:
        self.data = bytearray()

    def send(self, data: bytes) -> int:
        self.data += data
        return len(data)


class Client(TLSConnection):
    """`hooks` are called in place of sending a message, by its name: client_hello, second_client_hello, certificate,
    certificate_verify, client_key_exchange, change_cipher_spec, finished.
    """

    def __init__(self, port: int, hooks: Hooks | None = None) -> None:
        self.wire = Wire(port)
        super().__init__(self.wire)
        self.hooks = dict(hooks or {})
        self.server_hello: ServerHello | None = None
        self.server_key: Any = None
        self._hellos = 0

    def _name(self, message: Any) -> str:
        if message.contentType == ContentType.change_cipher_spec:
            return "change_cipher_spec"
        if message.contentType != ContentType.handshake:
            return ""
        kind: int = getattr(message, "handshakeType", None) or message.write()[0]
        if kind == HandshakeType.client_hello:
            self._hellos += 1
            return "client_hello" if self._hellos == 1 else "second_client_hello"
        return str(HandshakeType.toRepr(kind))

    def _sendMsg(self, msg: Any, randomizeFirstBlock: bool = True, update_hashes: bool = True) -> Iterator[int]:
        hook = self.hooks.get(self._name(msg))
        if hook is None:
            yield from super()._sendMsg(msg, randomizeFirstBlock, update_hashes)
        else:
            hook(self, msg)

    def _getMsg(self, *arguments: Any, **more: Any) -> Iterator[Any]:
        for result in super()._getMsg(*arguments, **more):
            if isinstance(result, ServerHello):
                self.server_hello = result
            if isinstance(result, Certificate):
                self.server_key = result.cert_chain.getEndEntityPublicKey()
            yield result

    # ---- for hooks, and for after the handshake ----

    def raw(self, data: bytes) -> None:
        """These bytes, as they are."""
        self.sock.sendall(bytes(data))

    def sealed(self, content_type: int, data: bytes) -> bytearray:
        """The bytes of one record, under the keys of now; its sequence number is used up."""
        captured, records = _Captured(), self._recordLayer._recordSocket
        before, records.sock = records.sock, captured
        try:
            for _ in self._recordLayer.sendRecord(Message(content_type, bytearray(data))):
                pass
        finally:
            records.sock = before
        return captured.data

    def record(self, content_type: int, data: bytes) -> None:
        """One record, under the keys of now."""
        self.raw(self.sealed(content_type, data))

    def handshake(self, data: bytes, size: int = RECORD) -> None:
        """A handshake message, in the transcript, in records of `size` bytes."""
        self._handshake_hash.update(bytearray(data))
        for at in range(0, len(data), size):
            self.record(ContentType.handshake, data[at : at + size])

    def flush(self) -> None:
        """What tlslite-ng holds back to send the client's whole flight at once."""
        self.sock.flush()


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
    wire = Wire(target.port)
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
