"""ChangeCipherSpec: where TLS 1.2 has it, and as the padding between flights that TLS 1.3 makes of it."""

from __future__ import annotations

from typing import Any

from tests.conformance.check import Run, checks
from tests.conformance.checks.flights import CCS, DECODE, ILLEGAL, UNEXPECTED, after, before, hooked, left_out
from tests.conformance.client import Client, request, talk
from tests.conformance.hello import plain_record


def _between(*records: bytes) -> Run:
    """In TLS 1.3 where it may be: behind the first hello and before Finished."""

    def hook(client: Client, _sent: Any) -> None:
        for data in records:
            client.raw(plain_record(CCS, data))

    return lambda target: talk(target, "1.3", {"change_cipher_spec": hook})


def _before_hello(client: Client, sent: Any) -> None:
    client.raw(plain_record(CCS, b"\x01", 0x0301))
    client.handshake(bytes(sent.write()))


def _behind_hello(client: Client, sent: Any) -> None:
    client.handshake(bytes(sent.write()))
    client.raw(plain_record(CCS, b"\x01"))


def _after(client: Client) -> str:
    client.raw(plain_record(CCS, b"\x01"))
    return request(client)


def _injection(client: Client, sent: Any) -> None:
    """CVE-2014-0224: ChangeCipherSpec before there is a secret to derive keys from."""
    client.raw(plain_record(CCS, b"\x01"))
    client.handshake(bytes(sent.write()))


def _of(data: bytes) -> Run:
    def hook(client: Client, _sent: Any) -> None:
        client.record(CCS, data)

    return hooked("1.2", "change_cipher_spec", hook)


def _sealed(client: Client) -> str:
    """tlslite-ng never encrypts one. So it gets the content, 0x01, as the type, and the type as padding behind that."""
    client._recordLayer.padding_cb = lambda *_: bytes([CCS])
    client.record(1, b"")
    client._recordLayer.padding_cb = None
    return request(client)


CHECKS = checks(
    "ChangeCipherSpec",
    ("left out, TLS 1.2", "RFC 5246 7.4.9", UNEXPECTED, left_out("1.2", "change_cipher_spec")),
    (
        "too early (CVE-2014-0224), TLS 1.2",
        "RFC 5246 7.1",
        UNEXPECTED,
        hooked("1.2", "client_key_exchange", _injection),
    ),
    ("before the hello, TLS 1.2", "RFC 5246 7.1", UNEXPECTED, before("1.2", "client_hello", CCS, b"\x01")),
    *(
        (f"of {text}, TLS 1.2", "RFC 5246 7.1", (ILLEGAL, DECODE, UNEXPECTED), _of(data))
        for text, data in (("0x02", b"\x02"), ("two bytes", b"\x01\x01"), ("no bytes", b""))
    ),
    ("after the handshake, TLS 1.2", "RFC 5246 7.1", UNEXPECTED, after("1.2", CCS, b"\x01")),
    (
        "behind the hello, TLS 1.3",
        "RFC 8446 5",
        "TLS 1.3",
        hooked("1.3", "client_hello", _behind_hello, request),
    ),
    ("left out, TLS 1.3", "RFC 8446 D.4", "TLS 1.3", left_out("1.3", "change_cipher_spec")),
    ("three times, TLS 1.3", "RFC 8446 5", ("TLS 1.3", UNEXPECTED), _between(*3 * [b"\x01"])),
    ("100 times, TLS 1.3", "RFC 8446 5", ("TLS 1.3", UNEXPECTED, DECODE), _between(*100 * [b"\x01"])),
    ("first of all, TLS 1.3", "RFC 8446 5", UNEXPECTED, hooked("1.3", "client_hello", _before_hello)),
    *(
        (f"of {text}, TLS 1.3", "RFC 8446 5", UNEXPECTED, _between(data))
        for text, data in (("0x02", b"\x02"), ("two bytes", b"\x01\x01"))
    ),
    (
        "after the handshake, TLS 1.3",
        "RFC 8446 5",
        UNEXPECTED,
        lambda target: talk(target, "1.3", then=_after),
    ),
    (
        "in an encrypted record, TLS 1.3",
        "RFC 8446 5",
        UNEXPECTED,
        lambda target: talk(target, "1.3", then=_sealed),
    ),
)
