"""The clients: applications that call others through their own proxy, and one outside the mesh."""

from __future__ import annotations

import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

SECONDS = 10
AT_ONCE = 4
_REQUEST = b"GET / HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\n\r\n"

# Key under which an answer is counted: "200 cart" names the application that answered, "403" is Envoy's own.
NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Call:
    """Who calls whom, and where."""

    name: str
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/"


def answer(call: Call) -> str:
    """The answer to one request through a new connection."""
    received = b""
    try:
        with socket.create_connection((call.host, call.port), SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(_REQUEST)
            while piece := connection.recv(65536):
                received += piece
    except OSError:
        return NO_ANSWER
    return meaning_of(received)


def meaning_of(received: bytes) -> str:
    head, separator, body = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not separator or not head.startswith(b"HTTP/1.1 ") or len(words) < 2:
        return NO_ANSWER
    status = words[1].decode("ascii", "replace")
    return f"{status} {body.split(b' ')[0].decode('ascii', 'replace')}" if status == "200" else status


def answers(call: Call, count: int, at_once: int = AT_ONCE) -> Counter[str]:
    """The answers to `count` requests, a few at a time."""
    if at_once == 1:
        return Counter(answer(call) for _ in range(count))
    with ThreadPoolExecutor(at_once) as pool:
        return Counter(pool.map(lambda _: answer(call), range(count)))
