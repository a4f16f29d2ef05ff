"""Handshake messages of TLS 1.3 behind the handshake: KeyUpdate, and nothing else of a client."""

from __future__ import annotations

from tlslite.constants import HandshakeType

from tests.conformance.check import Run, checks
from tests.conformance.checks.flights import DATA, DECODE, HANDSHAKE, ILLEGAL, UNEXPECTED, after, before
from tests.conformance.client import REQUEST, Client, answer, request, talk
from tests.conformance.hello import message, vector

KEY_UPDATE = 24
NOBODY_ASKED = message(HandshakeType.certificate, vector(b"", 1) + vector(b"", 3))


def _update(client: Client, asks: int) -> None:
    """KeyUpdate: the client's writing keys change behind it."""
    for _ in client.send_keyupdate_request(asks):
        pass


def _updates(count: int, asks: int) -> Run:
    def then(client: Client) -> str:
        for _ in range(count):
            _update(client, asks)
        return request(client)

    return lambda target: talk(target, "1.3", then=then)


def _interleaved(client: Client) -> str:
    """Data between the two halves of a KeyUpdate."""
    update = message(KEY_UPDATE, b"\x00")
    client.record(HANDSHAKE, update[:2])
    client.record(DATA, REQUEST)
    client.record(HANDSHAKE, update[2:])
    return answer(client)


def _update_not_alone(client: Client) -> str:
    """A message must not span a change of keys: here half of one more stands behind the KeyUpdate."""
    client.record(HANDSHAKE, message(KEY_UPDATE, b"\x00") + message(KEY_UPDATE, b"\x00")[:3])
    return request(client)


CHECKS = checks(
    "after the handshake",
    ("KeyUpdate", "RFC 8446 4.6.3", "TLS 1.3", _updates(1, 0)),
    ("KeyUpdate that asks for ours", "RFC 8446 4.6.3", "TLS 1.3", _updates(1, 1)),
    ("20 KeyUpdates", "RFC 8446 4.6.3", "TLS 1.3", _updates(20, 1)),
    ("100 KeyUpdates", "RFC 8446 4.6.3", ("TLS 1.3", UNEXPECTED), _updates(100, 1)),
    ("KeyUpdate of 2", "RFC 8446 4.6.3", ILLEGAL, after("1.3", HANDSHAKE, message(KEY_UPDATE, b"\x02"))),
    ("KeyUpdate is empty", "RFC 8446 4.6.3", DECODE, after("1.3", HANDSHAKE, message(KEY_UPDATE, b""))),
    ("KeyUpdate with a byte more", "RFC 8446 4.6.3", DECODE, after("1.3", HANDSHAKE, message(KEY_UPDATE, b"\x00\x00"))),
    ("data inside a KeyUpdate", "RFC 8446 5.1", UNEXPECTED, lambda target: talk(target, "1.3", then=_interleaved)),
    (
        "KeyUpdate not the last in its record",
        "RFC 8446 5.1",
        UNEXPECTED,
        lambda target: talk(target, "1.3", then=_update_not_alone),
    ),
    (
        "KeyUpdate before Finished",
        "RFC 8446 4.6.3",
        UNEXPECTED,
        before("1.3", "finished", HANDSHAKE, message(KEY_UPDATE, b"\x00")),
    ),
    *(
        (text, "RFC 8446 4.6", UNEXPECTED, after("1.3", HANDSHAKE, data))
        for text, data in (
            ("ClientHello", message(1, bytes(60))),
            ("NewSessionTicket from the client", message(4, bytes(20))),
            ("certificate that nobody asked for", NOBODY_ASKED),
            ("Finished", message(20, bytes(32))),
            ("EndOfEarlyData", message(5, b"")),
            ("unknown message", message(99, b"x")),
        )
    ),
)
