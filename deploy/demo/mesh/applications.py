"""The applications behind the proxies: each answers every request with its name and the caller that it was told.

python -m deploy.demo.mesh.applications NAME=HOST:PORT ...: serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import cast

CALLER_HEADER = b"x-forwarded-client-cert:"


class Application(asyncio.Protocol):
    """HTTP/1.1 GET, kept alive unless the client requests a close."""

    def __init__(self, name: str) -> None:
        self._name, self._received = name.encode(), b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head, self._received = self._received[:end], self._received[end + 4 :]
            self._answer(head.lower().split(b"\r\n"), head)

    def _answer(self, lines: list[bytes], head: bytes) -> None:
        caller = next((line for line in head.split(b"\r\n") if line.lower().startswith(CALLER_HEADER)), b"")
        body = self._name + b" " + caller
        ends = b"connection: close" in lines
        extra = b"connection: close\r\n" if ends else b""
        self._transport.write(b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n\r\n%s" % (extra, len(body), body))
        if ends:
            self._transport.close()


async def application(name: str, port: int, host: str = "127.0.0.1") -> asyncio.Server:
    """Serves until it is closed."""
    return await asyncio.get_running_loop().create_server(lambda: Application(name), host, port, backlog=512)


async def serve(wanted: Iterable[str]) -> None:
    for one in wanted:
        name, _, address = one.partition("=")
        host, _, port = address.rpartition(":")
        await application(name, int(port), host)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
