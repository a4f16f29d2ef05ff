"""python -m tests.faults.front_attackers api|xds KIND HOST:PORT SECONDS [SOURCE]: an attack on the control plane.

A process of its own, which has no token and no certificate. It keeps as many connections as the attack has, from the
address SOURCE, and connects again where one was closed. Prints "begins" when it has begun, and at the end one JSON
object with what it got to do.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import hpack
from hyperframe.frame import DataFrame, HeadersFrame

from tests.faults.attackers import HELLO, frames
from tests.offload.dataplane.raw_http2 import grpc_frame

BODY = 4 * 1024 * 1024
# Before it connects again: a loop that only connects would measure the host's loopback.
PAUSE_S = 0.05
DRIP_S = 0.5

# Goes on until the connection ends.
Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _end_of(reader: asyncio.StreamReader) -> asyncio.Task[bytes]:
    """However it ends."""
    task = asyncio.create_task(reader.read())
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and then, until somebody has enough of it."""
    gone = _end_of(reader)
    while not gone.done() and not writer.is_closing():
        writer.write(b"a")
        await writer.drain()
        await asyncio.wait([gone], timeout=DRIP_S)


async def _nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def _slow_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /meshes HTTP/1.1\r\nhost: localhost\r\nx: ")
    await _drip(reader, writer)


def _put(length: int) -> bytes:
    head = "PUT /meshes/default HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {length}\r\n\r\n".encode()


async def _slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_put(BODY))
    await _drip(reader, writer)


async def _big_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All but the last bytes, and then it waits."""
    writer.write(_put(BODY))
    gone = _end_of(reader)
    for _ in range(BODY // 65536):
        if writer.is_closing():
            break
        writer.write(b" " * (65536 - 1))
        await writer.drain()
    await gone


_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_FIELDS = [(":method", "POST"), (":scheme", "https"), (":path", _ADS), (":authority", "localhost"), ("te", "trailers")]


def _streams(message: bytes) -> bytes:
    """A hundred streams without a token, each with the beginning of a message."""
    encoder, data = hpack.Encoder(), HELLO
    fields = [*_FIELDS, ("content-type", "application/grpc")]
    for stream in range(1, 200, 2):
        data += frames(HeadersFrame(stream, encoder.encode(fields), flags=["END_HEADERS"]))
        data += b"".join(frames(DataFrame(stream, message[at : at + 16384])) for at in range(0, len(message), 16384))
    return data


async def _calls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_streams(grpc_frame(bytes(BODY - 16))[:60_000]))
    await reader.read()


@dataclass(frozen=True)
class Attack:
    what: str
    act: Act
    connections: int
    tls: bool = True


API: Mapping[str, Attack] = {
    "idle": Attack("1,500 TCP connections without TLS", _nothing, 1500, tls=False),
    "silent": Attack("300 connections with TLS that then send nothing", _nothing, 300),
    "slow_headers": Attack("300 requests whose headers never end", _slow_headers, 300),
    "slow_body": Attack("300 requests without credentials whose bodies never end", _slow_body, 300),
    "big_body": Attack("100 bodies of 4 MiB without credentials", _big_body, 100),
}
XDS: Mapping[str, Attack] = {
    "idle": Attack("1,500 TCP connections without TLS", _nothing, 1500, tls=False),
    "silent": Attack("300 connections with TLS that then send nothing", _nothing, 300),
    "calls": Attack("100 connections, 100 streams each, without a token", _calls, 100),
}


class Attacker:
    def __init__(self, attack: Attack, host: str, port: int, source: str | None) -> None:
        self.attack, self.host, self.port = attack, host, port
        self.source = (source, 0) if source else None
        self.did: Counter[str] = Counter(connected=0, refused=0, closed=0)
        # Its certificate is of no interest to who attacks.
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        if attack in XDS.values():
            self.context.set_alpn_protocols(["h2"])

    async def one(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection(
                    self.host, self.port, local_addr=self.source, ssl=self.context if self.attack.tls else None
                )
            except OSError:
                self.did["refused"] += 1
            else:
                self.did["connected"] += 1
                try:
                    await self.attack.act(reader, writer)
                except OSError:
                    pass
                finally:
                    writer.transport.abort()
                self.did["closed"] += 1
            await asyncio.sleep(PAUSE_S * random.uniform(0.5, 1.5))

    async def run(self, seconds: float) -> None:
        tasks = [asyncio.create_task(self.one()) for _ in range(self.attack.connections)]
        print("begins", flush=True)
        await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> int:
    which, kind, address, seconds = sys.argv[1:5]
    host, _, port = address.rpartition(":")
    attack = (API if which == "api" else XDS)[kind]
    attacker = Attacker(attack, host, int(port), sys.argv[5] if len(sys.argv) > 5 else None)
    asyncio.run(attacker.run(float(seconds)))
    print(json.dumps(attacker.did))
    return 0


if __name__ == "__main__":
    sys.exit(main())
