"""What attackers do, and how the data plane counts it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from hyperframe.frame import ContinuationFrame, HeadersFrame

from tests.offload.dataplane.raw_http2 import RawClient, headers
from tests.offload.dataplane.serving import Server, identity

NOBODY = [{"uid": 2**32 - 2}]


def refusals(server: Server) -> dict[str, int]:
    return dict(server.data_plane.statistics()["refusals"])


def allow(server: Server, selectors: Sequence[object] | None = None, name: str = "www") -> None:
    rule = {"key": server.keys["p256"], "usage": "any", "decrypt": False}
    server.data_plane.set_identities([identity(name, [rule], selectors)])  # type: ignore[list-item,arg-type]


def send_until_blocked(connection: socket.socket, data: bytes, most: int) -> int:
    """How much the other side took before it stopped to, at most `most` bytes."""
    connection.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
        while sent < most:
            sent += connection.send(data[sent % len(data) :])
    return sent


def bomb(client: RawClient, references: int, method: str = "Sign", name: str = "x") -> list[bytes]:
    """One field of 4,000 bytes, which goes into the decoder's table, and then so many references of one byte to it."""
    block = client.encoder.encode(headers(method)) + client.encoder.encode([(name, "a" * 3900)])
    block += bytes([0x80 | 62]) * references
    stream = client.next_stream
    client.next_stream += 2
    first, rest = block[:16000], block[16000:]
    frames = [HeadersFrame(stream, first, flags=[] if rest else ["END_HEADERS"]).serialize()]
    while rest:
        piece, rest = rest[:16000], rest[16000:]
        frames.append(ContinuationFrame(stream, piece, flags=[] if rest else ["END_HEADERS"]).serialize())
    return frames
