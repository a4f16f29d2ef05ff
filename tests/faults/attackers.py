"""python -m tests.faults.attackers KIND SOCKET METRICS UID SECONDS: attacks the daemon as a user without identity.

SOCKET is the data plane's, METRICS the address of the metrics port. A process of its own, which gives up root for UID
before it connects. It sends frames that were made beforehand, on as
many connections as the attack has, as fast as they are taken or at the attack's rate, and connects again where it was
closed. Prints, at the end, one JSON object with what it got to do.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import hpack
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from tests.offload.dataplane.raw_http2 import PREFACE, grpc_frame, headers

CHUNK = 64 * 1024
# Stream ids end at 2**31; nobody gets so far.
CALLS = 2000
HELLO = PREFACE + SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 2**30}).serialize()
HELLO += WindowUpdateFrame(0, window_increment=2**30).serialize()


def frames(*made: Frame) -> bytes:
    return b"".join(frame.serialize() for frame in made)


def calls(fields: list[tuple[str, str]], count: int = CALLS, first: int = 1) -> bytes:
    """So many calls that end at once; the first names the headers, the others refer to them."""
    encoder = hpack.Encoder()
    ends = ["END_HEADERS", "END_STREAM"]
    made = (HeadersFrame(first + 2 * n, encoder.encode(fields), flags=ends) for n in range(count))
    return frames(*made)


def refused_calls() -> bytes:
    return HELLO + calls(headers("Unknown"), 100 * CALLS // 10)


def hpack_bomb() -> bytes:
    """60 KB of headers in 30 bytes, call after call: below the bound that ends the connection."""
    encoder, data = hpack.Encoder(), HELLO
    long = [*headers("Unknown"), ("x", "a" * 3800)]
    data += frames(HeadersFrame(1, encoder.encode(long), flags=["END_HEADERS", "END_STREAM"]))
    post_http_root = bytes([0x83, 0x86, 0x84, 0x01, 0x01, 0x61])  # of the static table, and an authority
    block = post_http_root + bytes([0x80 | 62]) * 15
    made = (HeadersFrame(3 + 2 * n, block, flags=["END_HEADERS", "END_STREAM"]) for n in range(10 * CALLS))
    return data + frames(*made)


def padding() -> bytes:
    opened = HeadersFrame(1, hpack.Encoder().encode(headers("Stream")), flags=["END_HEADERS"])
    empty = DataFrame(1, b"", pad_length=0, flags=["PADDED"])
    return HELLO + frames(opened) + empty.serialize() * 20_000


def unfinished() -> bytes:
    """Messages of which the last byte never comes, as many as windows allow."""
    encoder, message, data = hpack.Encoder(), grpc_frame(bytes(60_000))[:-1], HELLO
    for stream in range(1, 2 * 30, 2):
        pieces = [DataFrame(stream, message[at : at + 16384]) for at in range(0, len(message), 16384)]
        data += frames(HeadersFrame(stream, encoder.encode(headers("Sign")), flags=["END_HEADERS"]), *pieces)
    return data


def tiny_operations() -> bytes:
    """Two bytes ask for an operation, and get a sentence."""
    opened = HeadersFrame(1, hpack.Encoder().encode(headers("Stream")), flags=["END_HEADERS"])
    message = grpc_frame(bytes([0x0A, 0x00]) * 256)
    return HELLO + frames(opened) + frames(DataFrame(1, message * 20)) * 200


def watching() -> bytes:
    """As many names in each message as there may be: refused, written down, and forgotten again."""
    opened = HeadersFrame(1, hpack.Encoder().encode(headers("WatchIdentities")), flags=["END_HEADERS"])
    names = [b"%07d" % n for n in range(128)]
    message = grpc_frame(b"".join(field + b"\x07" + name for name in names for field in (b"\x0a", b"\x12")))
    return HELLO + frames(opened) + frames(DataFrame(1, message * 6)) * 500


def half_a_request() -> bytes:
    return b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n"


@dataclass(frozen=True)
class Attack:
    what: str
    data: Callable[[], bytes]
    connections: int
    reads: bool = True
    bytes_per_second: int | None = None  # of one connection; None: as much as is taken
    hold: bool = True  # False: closes each connection at once, and connects again
    metrics: bool = False  # at the metrics port, in place of the data plane


ATTACKS: Mapping[str, Attack] = {
    "busy": Attack("no attack: a process that only computes", bytes, 0),
    "deaf": Attack("20 connections send rejected calls and read nothing", refused_calls, 20, reads=False),
    "bomb": Attack("HPACK bombs at 1 MB/s on each of 8 connections", hpack_bomb, 8, bytes_per_second=10**6),
    "crowd": Attack("1,500 connections with rejected calls", refused_calls, 1500),
    "padding": Attack("200 connections of empty padded DATA", padding, 200),
    "unfinished": Attack("200 connections of messages that never end", unfinished, 200),
    "tiny": Attack("8 connections of operations of two bytes", tiny_operations, 8),
    "watching": Attack("8 connections that watch and unwatch 128 identities in each message", watching, 8),
    "scrapes": Attack("2,000 requests to the metrics port that never end", half_a_request, 2000, metrics=True),
    "churn": Attack("connects and disconnects continuously", lambda: HELLO, 1, hold=False),
}


@dataclass
class Peer:
    socket: socket.socket
    data: memoryview
    sent: int = 0
    began: float = field(default_factory=time.monotonic)


class Attacker:
    def __init__(self, attack: Attack, path: str, metrics: str) -> None:
        host, _, port = metrics.rpartition(":")
        self.attack = attack
        self.family = socket.AF_INET if attack.metrics else socket.AF_UNIX
        self.address: str | tuple[str, int] = (host, int(port)) if attack.metrics else path
        self.data = memoryview(attack.data())
        self.peers: dict[int, Peer] = {}
        self.poll = select.epoll()
        self.did = {"connected": 0, "refused": 0, "closed": 0, "sent": 0, "received": 0}

    def connect(self) -> bool:
        one = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        error = one.connect_ex(self.address)
        if error not in (0, errno.EINPROGRESS):  # the queue of the listener is full
            one.close()
            self.did["refused"] += 1
            return False
        self.did["connected"] += 1
        if not self.attack.hold:
            with suppress(OSError):
                one.send(self.data)
            one.close()
            return True
        self.peers[one.fileno()] = Peer(one, self.data)
        events = select.EPOLLOUT | (select.EPOLLIN if self.attack.reads else 0)
        self.poll.register(one, events)
        return True

    def close(self, number: int) -> None:
        peer = self.peers.pop(number)
        self.poll.unregister(number)
        peer.socket.close()
        self.did["closed"] += 1

    def step(self, number: int, events: int) -> None:
        peer = self.peers[number]
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self.close(number)
            return
        try:
            if events & select.EPOLLIN:
                got = len(peer.socket.recv(CHUNK))
                self.did["received"] += got
                if got == 0:
                    self.close(number)
                    return
            if events & select.EPOLLOUT:
                self.send(peer)
        except BlockingIOError:
            pass
        except OSError:
            self.close(number)

    def send(self, peer: Peer) -> None:
        left = len(peer.data) - peer.sent
        if left == 0:
            events = select.EPOLLIN if self.attack.reads else 0
            self.poll.modify(peer.socket, events)
            return
        rate, size = self.attack.bytes_per_second, min(left, CHUNK)
        if rate is not None:
            size = min(size, int(rate * (time.monotonic() - peer.began)) - peer.sent)
            if size <= 0:
                return
        count = peer.socket.send(peer.data[peer.sent : peer.sent + size])
        peer.sent += count
        self.did["sent"] += count

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for _ in range(64):
                if len(self.peers) >= self.attack.connections or not self.connect():
                    break
            for number, events in self.poll.poll(0.001 if self.peers else 0, 256):
                if number in self.peers:
                    self.step(number, events)
            if self.attack.bytes_per_second is not None:
                time.sleep(0.001)


def compute(seconds: float) -> Iterator[int]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield 1


def main() -> int:
    kind, path, metrics, uid, seconds = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])
    attack = ATTACKS[kind]
    attacker = Attacker(attack, path, metrics)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    print("begins", flush=True)
    if attack.connections == 0:
        sum(compute(seconds))
    else:
        attacker.run(seconds)
    print(json.dumps(attacker.did))
    return 0


if __name__ == "__main__":
    sys.exit(main())
