"""Handshake messages: out of order, unknown, malformed, twice, too early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlslite.constants import HandshakeType
from tlslite.messages import CertificateVerify

from tests.conformance.check import Run, checks
from tests.conformance.checks.flights import (
    ALERT,
    BAD_MAC,
    BOTH,
    DATA,
    DECODE,
    DECRYPT,
    HANDSHAKE,
    ILLEGAL,
    UNEXPECTED,
    after,
    before,
    both,
    changed,
    empty,
    hooked,
    last_bit,
    left_out,
    nothing,
    one_less,
    one_more,
    twice,
)
from tests.conformance.client import CLOSE_NOTIFY, REQUEST, Client, request, talk
from tests.conformance.hello import message, plain_record, vector
from tests.conformance.scripted import Hook

FAILURE = "alert handshake_failure"
KEY_UPDATE = 24
NOBODY_ASKED = message(HandshakeType.certificate, vector(b"", 1) + vector(b"", 3))


def _finished_with_more(client: Client, sent: Any) -> None:
    client.record(HANDSHAKE, bytes(sent.write()) + message(KEY_UPDATE, b"\x00")[:3])


def _plain_finished(client: Client, sent: Any) -> None:
    client.raw(plain_record(HANDSHAKE, bytes(sent.write())))


def _data_instead(client: Client, _sent: Any) -> None:
    client.record(DATA, REQUEST)


def _no_certificate(version: str) -> Run:
    """An empty list where a certificate is required."""
    body = {"1.2": vector(b"", 3), "1.3": vector(b"", 1) + vector(b"", 3)}[version]

    def certificate(client: Client, _sent: Any) -> None:
        client.handshake(message(HandshakeType.certificate, body))

    return lambda target: talk(target, version, {"certificate": certificate, "certificate_verify": nothing}, mtls=True)


def _wrong_scheme(scheme: tuple[int, int]) -> Run:
    """A signature that says it was made with an algorithm that nobody asked for."""

    def hook(client: Client, sent: Any) -> None:
        other = CertificateVerify(client.version).create(sent.signature, scheme)
        client.handshake(bytes(other.write()))

    return lambda target: talk(target, "1.3", {"certificate_verify": hook}, mtls=True)


def _mangled(data: bytes) -> bytes:
    """The certificate inside the message is noise."""
    return data[:20] + b"\xff" * (len(data) - 40) + data[-20:]


def _finished(change: Callable[[bytes], bytes]) -> Callable[[str], Run]:
    return lambda version: changed(version, "finished", change)


def _certificate(change: Callable[[bytes], bytes], name: str = "certificate") -> Callable[[str], Run]:
    return lambda version: changed(version, name, change, mtls=True)


def _first(data: bytes) -> Callable[[str], Run]:
    return lambda version: before(version, "client_hello", HANDSHAKE, data)


def _cancelled(version: str) -> Run:
    """The user has thought better of it, in the middle of the handshake."""

    def hook(client: Client, _sent: Any) -> None:
        client.record(ALERT, b"\x01\x5a")
        client.record(ALERT, CLOSE_NOTIFY)

    return hooked(version, "finished", hook)


def _followed_by(data: bytes) -> Hook:
    """In one packet, so that it is there while the signature is still being made."""

    def hook(client: Client, sent: Any) -> None:
        hello = bytes(sent.write())
        client._handshake_hash.update(bytearray(hello))
        client.raw(plain_record(HANDSHAKE, hello, 0x0301) + data)

    return hook


def _then_end(client: Client, sent: Any) -> None:
    client.handshake(bytes(sent.write()))
    client.wire.finish()


CHECKS = checks(
    "messages",
    *both("Finished is wrong", "RFC 8446 4.4.4", DECRYPT, _finished(last_bit)),
    *both("Finished is a byte short", "RFC 8446 4.4.4", (DECRYPT, DECODE), _finished(one_less)),
    *both("Finished is a byte long", "RFC 8446 4.4.4", (DECRYPT, DECODE), _finished(one_more)),
    *both("Finished is empty", "RFC 8446 4.4.4", (DECRYPT, DECODE), _finished(empty)),
    *both("data instead of Finished", "RFC 8446 4", UNEXPECTED, lambda v: hooked(v, "finished", _data_instead)),
    *both("two hellos", "RFC 8446 4.1.2", UNEXPECTED, lambda v: twice(v, "client_hello")),
    *(
        (
            f"{text} in one packet with the hello, TLS {version}",
            "RFC 8446 5",
            expected,
            hooked(version, "client_hello", _followed_by(data), request),
        )
        for version in BOTH
        for text, data, expected in (
            ("fatal alert", plain_record(ALERT, b"\x02\x28"), ("closed", "reset", BAD_MAC)),
            ("unprotected data", plain_record(DATA, REQUEST), (UNEXPECTED, BAD_MAC)),
            ("second hello", plain_record(HANDSHAKE, message(1, bytes(60))), (UNEXPECTED, BAD_MAC)),
            ("record of unknown type", plain_record(99, b"x"), (UNEXPECTED, BAD_MAC)),
            ("noise", b"\x80" * 300, (UNEXPECTED, BAD_MAC, "alert protocol_version", "alert record_overflow")),
        )
    ),
    *both(
        "FIN behind the hello",
        "RFC 8446 6.1",
        ("closed", "reset"),
        lambda v: hooked(v, "client_hello", _then_end),
    ),
    *both(
        "unknown message before Finished",
        "RFC 8446 4",
        UNEXPECTED,
        lambda v: before(v, "finished", HANDSHAKE, message(99, b"x")),
    ),
    *both("ServerHello from the client", "RFC 8446 4", UNEXPECTED, _first(message(2, bytes(40)))),
    *both("unknown message first", "RFC 8446 4", UNEXPECTED, _first(message(99, b"x"))),
    *both(
        "message of 16 MiB",
        "RFC 8446 4",
        (ILLEGAL, DECODE, UNEXPECTED),
        _first(b"\x01\xff\xff\xff" + bytes(100)),
    ),
    *both(
        "certificate that nobody asked for",
        "RFC 8446 4.4.2",
        UNEXPECTED,
        lambda v: before(v, "finished", HANDSHAKE, NOBODY_ASKED),
    ),
    ("no certificate where one is required, TLS 1.2", "RFC 5246 7.4.6", FAILURE, _no_certificate("1.2")),
    (
        "no certificate where one is required, TLS 1.3",
        "RFC 8446 4.4.2.4",
        "alert certificate_required",
        _no_certificate("1.3"),
    ),
    *both(
        "CertificateVerify left out",
        "RFC 8446 4.4.3",
        UNEXPECTED,
        lambda v: left_out(v, "certificate_verify", mtls=True),
    ),
    *both("CertificateVerify is wrong", "RFC 8446 4.4.3", DECRYPT, _certificate(last_bit, "certificate_verify")),
    *both("CertificateVerify is empty", "RFC 8446 4.4.3", DECODE, _certificate(empty, "certificate_verify")),
    *both("Certificate is empty", "RFC 8446 4.4.2", DECODE, _certificate(empty)),
    *both("Certificate with a byte more", "RFC 8446 4.4.2", DECODE, _certificate(one_more)),
    *both("Certificate is no DER", "RFC 8446 4.4.2", (DECODE, "alert bad_certificate"), _certificate(_mangled)),
    *both("Certificate twice", "RFC 8446 4", UNEXPECTED, lambda v: twice(v, "certificate", mtls=True)),
    *both("user_canceled, then close_notify", "RFC 8446 6.1", ("closed", "reset", "close_notify"), _cancelled),
    ("Finished in the clear", "RFC 5246 7.4.9", (UNEXPECTED, BAD_MAC), hooked("1.2", "finished", _plain_finished)),
    ("ClientKeyExchange left out", "RFC 5246 7.3", UNEXPECTED, left_out("1.2", "client_key_exchange")),
    ("ClientKeyExchange twice", "RFC 5246 7.3", UNEXPECTED, twice("1.2", "client_key_exchange")),
    ("ClientKeyExchange is empty", "RFC 5246 7.4.7", DECODE, changed("1.2", "client_key_exchange", empty)),
    ("ClientKeyExchange a byte short", "RFC 5246 7.4.7", DECODE, changed("1.2", "client_key_exchange", one_less)),
    ("ClientKeyExchange a byte long", "RFC 5246 7.4.7", DECODE, changed("1.2", "client_key_exchange", one_more)),
    (
        "HelloRequest from the client",
        "RFC 5246 7.4.1.1",
        (UNEXPECTED, "alert no_renegotiation"),
        after("1.2", HANDSHAKE, message(0, b"")),
    ),
    (
        "Finished once more",
        "RFC 5246 7.4.9",
        (UNEXPECTED, "alert no_renegotiation"),
        after("1.2", HANDSHAKE, message(20, bytes(12))),
    ),
    (
        "Finished in the clear, TLS 1.3",
        "RFC 8446 5.2",
        (UNEXPECTED, BAD_MAC),
        hooked("1.3", "finished", _plain_finished),
    ),
    (
        "bytes behind Finished, in its record",
        "RFC 8446 5.1",
        UNEXPECTED,
        hooked("1.3", "finished", _finished_with_more),
    ),
    (
        "compressed certificate that was not offered",
        "RFC 8879 4",
        (UNEXPECTED, ILLEGAL),
        lambda target: talk(target, "1.3", mtls=True, certificate_compression_send=["zlib"]),
    ),
    ("signature of PKCS #1 in CertificateVerify", "RFC 8446 4.4.3", ILLEGAL, _wrong_scheme((4, 1))),
    ("signature by an unknown algorithm", "RFC 8446 4.4.3", ILLEGAL, _wrong_scheme((0x63, 0x99))),
)
