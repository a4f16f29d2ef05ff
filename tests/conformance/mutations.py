"""Hellos with random damage: our socket answers each as stock Envoy does, whatever that is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from tlslite.constants import ContentType

from tests.conformance.client import Client, send_plainly, settings
from tests.conformance.hello import plain_record, vector
from tests.conformance.rig import SERVER_NAME, Target

SEED = 4
MOST_CHANGES = 3
# Ours, stock: where a hello of TLS 1.2 has lost its signature algorithms, SHA-1 is what is left (RFC 5246 7.4.1.4.1).
# Stock Envoy signs with it; no key at the daemon does (RFC 9155 4).
STRICTER = ("alert handshake_failure", "ServerHello")


class _HelloSent(Exception):
    """The hello is made; the handshake ends here."""


def _hello(target: Target, version: str) -> bytes:
    """What tlslite-ng would send."""
    made: list[bytes] = []

    def keep(_client: Client, hello: Any) -> None:
        made.append(bytes(hello.write()))
        raise _HelloSent

    client = Client(target.port, {"client_hello": keep})
    try:
        client.handshakeClientCert(settings=settings(version), serverName=SERVER_NAME)
    except _HelloSent:
        return made[0]
    finally:
        client.wire.close()
    raise AssertionError("no hello was sent")


def _damaged(hello: bytes, source: random.Random) -> bytes:
    """One to three of: a bit flipped, a byte replaced, some bytes taken out, put in, or doubled. The length fits."""
    body = bytearray(hello[4:])
    for _ in range(source.randint(1, MOST_CHANGES)):
        at = source.randrange(len(body))
        match source.randrange(12):  # other lengths mostly end as decode errors, so they are the rarer
            case 0:
                del body[at : at + source.randint(1, 8)]
            case 1:
                body[at:at] = source.randbytes(source.randint(1, 8))
            case 2:
                body[at:at] = body[at : at + source.randint(1, 40)]
            case 3 | 4 | 5:
                body[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF))
            case _:
                body[at] ^= 1 << source.randrange(8)
    return hello[:1] + vector(bytes(body), 3)


def damaged_hellos(target: Target, count: int) -> Iterator[tuple[int, bytes]]:
    """Numbered, the same in each run but for the random numbers of the client."""
    hellos = [_hello(target, version) for version in ("1.2", "1.3")]
    for number in range(count):
        yield number, _damaged(hellos[number % 2], random.Random(SEED * 1_000_003 + number))


def answer_to(target: Target, hello: bytes) -> str:
    """The first record that comes. The message's length is right, so there is always one."""
    return send_plainly(target, plain_record(ContentType.handshake, hello, 0x0301))


def differences(ours: Target, stock: Target, count: int) -> list[str]:
    """Hellos to which the two answer differently, but for STRICTER."""
    found = []
    for number, hello in damaged_hellos(ours, count):
        answers = answer_to(ours, hello), answer_to(stock, hello)
        if answers[0] != answers[1] and answers != STRICTER:
            found.append(f"damaged hello {number}: ours {answers[0]}, stock {answers[1]}: {hello.hex()}")
    return found
