"""tlslite-ng (LGPL 2.1) with hooks: its messages may be changed, split, left out or added to on their way out.

It is a second, independent TLS: nothing of BoringSSL's or OpenSSL's view of the protocol is in it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tlslite.constants import ContentType, HandshakeType
from tlslite.messages import Message
from tlslite.tlsconnection import TLSConnection

TIMEOUT = 10.0
RECORD = 2**14

Hook = Callable[[Any, Any], None]  # the connection, the message
Hooks = Mapping[str, Hook]


class Wire:
    """The socket, which does not mind that the other end has closed: what it thought, its alert tells."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(TIMEOUT)
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
            if error.errno != errno.ENOTCONN:  # the other end has already reset the connection
                raise


class _Captured:
    """In place of a socket: keeps what is sent."""

    def __init__(self) -> None:
        self.data = bytearray()

    def send(self, data: bytes) -> int:
        self.data += data
        return len(data)


class Scripted(TLSConnection):
    """`hooks` are called in place of sending a message, by its name, as tlslite-ng has it: client_hello, ...; a second
    hello behind a HelloRetryRequest is second_client_hello.
    """

    def __init__(self, connected: socket.socket, hooks: Hooks | None = None) -> None:
        self.wire = Wire(connected)
        super().__init__(self.wire)
        self.hooks = dict(hooks or {})
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

    def _queue_message(self, msg: Any) -> None:
        """A server's messages, which are sent together at `_queue_flush`: by the hooks as well."""
        self.sock.buffer_writes = True
        for _ in self._sendMsg(msg):
            pass

    def _queue_flush(self) -> Iterator[int]:
        self.flush()
        self.sock.buffer_writes = False
        yield from ()

    # ---- for hooks, and for after the handshake ----

    def raw(self, data: bytes | bytearray) -> None:
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
        """What tlslite-ng holds back to send a whole flight at once."""
        self.sock.flush()
