"""The record layer: any fragmentation is taken, too much is refused, and nothing that is cut off or forged gets in."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from tlslite.constants import ContentType

from tests.conformance.check import Run, checks
from tests.conformance.client import REQUEST, Client, answer, request, send_plainly, talk
from tests.conformance.hello import cut, in_records, plain_record, sending
from tests.conformance.rig import Target

HANDSHAKE, ALERT = ContentType.handshake, ContentType.alert
DATA, CCS = ContentType.application_data, ContentType.change_cipher_spec
BOTH = ("1.2", "1.3")
OVERFLOW, UNEXPECTED, BAD_MAC = "alert record_overflow", "alert unexpected_message", "alert bad_record_mac"
DECODE = "alert decode_error"
GARBAGE_SEED = 20260801
# What a server may say to bytes that are no TLS, or simply hang up.
ANY_REFUSAL = (
    "closed",
    "reset",
    *(
        f"alert {name}"
        for name in (
            "unexpected_message",
            "protocol_version",
            "record_overflow",
            "decode_error",
            "bad_record_mac",
            "illegal_parameter",
            "handshake_failure",
        )
    ),
)
FLIGHT = {"1.2": "client_key_exchange", "1.3": "finished"}  # where the client's second flight begins


# ---- fragmentation ----


def fragmented(version: str, size: int, *names: str, mtls: bool = False) -> Run:
    """These messages in records of `size` bytes."""

    def hook(client: Client, message: Any) -> None:
        client.handshake(bytes(message.write()), size)

    return lambda target: talk(target, version, dict.fromkeys(names, hook), mtls=mtls)


def _data_in_pieces(size: int) -> Callable[[Client], str]:
    def send(client: Client) -> str:
        for piece in cut(REQUEST, size):
            client.record(DATA, piece)
        return answer(client)

    return send


def _hello_with_empty_record(version: str) -> Run:
    return sending(lambda hello: plain_record(HANDSHAKE, b"", 0x0301) + plain_record(HANDSHAKE, hello, 0x0301), version)


def _empty_data(count: int) -> Callable[[Client], str]:
    def send(client: Client) -> str:
        for _ in range(count):
            client.record(DATA, b"")
        return request(client)

    return send


def _empty_handshake(client: Client) -> str:
    client.record(HANDSHAKE, b"")
    return request(client)


# ---- sizes ----


def _data_of(size: int) -> Callable[[Client], str]:
    """A record with `size` bytes inside: a request whose header pads it."""

    def send(client: Client) -> str:
        head, tail = REQUEST[:-2], b"\r\n\r\n"
        padding = b"x-padding: " + b"x" * (size - len(head) - len(tail) - len(b"x-padding: "))
        client.record(DATA, head + padding + tail)
        return answer(client)

    return send


def _header(content_type: int, length: int) -> Callable[[Client], str]:
    """After the handshake, a record that claims this length."""

    def send(client: Client) -> str:
        client.raw(plain_record(content_type, bytes(length), length=length))
        return answer(client)

    return send


def _hello_record_of(length: int) -> Run:
    return lambda target: send_plainly(target, plain_record(HANDSHAKE, bytes(length), 0x0301))


# ---- protection ----


def _flipped(at: int, content_type: int = DATA, data: bytes = REQUEST) -> Callable[[Client], str]:
    """A sealed record with one bit changed at this place."""

    def send(client: Client) -> str:
        record = client.sealed(content_type, data)
        record[at] ^= 1
        client.raw(record)
        return answer(client)

    return send


def _flipped_finished(client: Client, message: Any) -> None:
    record = client.sealed(HANDSHAKE, bytes(message.write()))
    record[-1] ^= 0x80
    client.raw(record)


def _replayed(client: Client) -> str:
    record = client.sealed(DATA, REQUEST)
    client.raw(record)
    if not (first := answer(client)).startswith("TLS"):
        return f"first time: {first}"
    client.raw(record)
    return answer(client)


def _skipped(client: Client) -> str:
    """A record is lost: the sequence number of the next does not fit."""
    client.sealed(DATA, REQUEST)
    client.record(DATA, REQUEST)
    return answer(client)


def _shorter(size: int) -> Callable[[Client], str]:
    """A record too short to hold a tag."""

    def send(client: Client) -> str:
        client.raw(plain_record(DATA, bytes(size)))
        return answer(client)

    return send


def _plain(content_type: int, data: bytes) -> Callable[[Client], str]:
    """After the handshake, a record that nothing protects."""

    def send(client: Client) -> str:
        client.raw(plain_record(content_type, data))
        return answer(client)

    return send


def _inner(content_type: int, data: bytes) -> Callable[[Client], str]:
    def send(client: Client) -> str:
        client.record(content_type, data)
        return answer(client)

    return send


def _padded(padding: int) -> Callable[[Client], str]:
    """RFC 8446 5.4: zeros behind the content."""

    def send(client: Client) -> str:
        client._recordLayer.padding_cb = lambda *_: padding
        client.record(DATA, REQUEST)
        client._recordLayer.padding_cb = None
        return answer(client)

    return send


# ---- what is cut off, or was never TLS ----


def _truncated_hello(size: int | float) -> Run:
    """So many bytes of the hello (or this part of them), then FIN."""

    def hook(client: Client, hello: Any) -> None:
        data = plain_record(HANDSHAKE, bytes(hello.write()), 0x0301)
        client.raw(data[: size if isinstance(size, int) else int(size * len(data))])
        client.wire.finish()

    return lambda target: talk(target, "1.3", {"client_hello": hook})


def _truncated_flight(version: str, size: int) -> Run:
    """The client's second flight, cut off inside its first record."""

    def hook(client: Client, message: Any) -> None:
        client.raw(client.sealed(HANDSHAKE, bytes(message.write()))[:size])
        client.flush()
        client.sock.buffer_writes = False
        client.wire.finish()

    return lambda target: talk(target, version, {FLIGHT[version]: hook}, lambda client: answer(client))


def _truncated_data(client: Client) -> str:
    client.raw(client.sealed(DATA, REQUEST)[:20])
    client.wire.finish()
    return answer(client)


def _garbage(number: int, size: int) -> bytes:
    return random.Random(GARBAGE_SEED + number).randbytes(size)


def _garbage_flight(version: str, number: int) -> Run:
    """Noise in place of the client's second flight."""

    def hook(client: Client, _message: Any) -> None:
        client.raw(_garbage(number, 400))
        client.flush()
        client.sock.buffer_writes = False

    return lambda target: talk(target, version, {FLIGHT[version]: hook}, lambda client: answer(client))


def _garbage_data(client: Client) -> str:
    client.raw(_garbage(0, 400))
    return answer(client)


def _garbage_in_record(number: int) -> Run:
    """Noise in a handshake record."""
    return lambda target: send_plainly(target, plain_record(HANDSHAKE, _garbage(number, 200), 0x0301), end=True)


def _first(data: bytes) -> Run:
    return lambda target: send_plainly(target, data, end=True)


def _both(name: str, standard: str, expected: str | tuple[str, ...], then: Callable[[Client], str]) -> list[Any]:
    """After a handshake of either version; {version} in what is expected is it."""
    texts = (expected,) if isinstance(expected, str) else expected
    rows = []
    for version in BOTH:
        fitting = tuple(text.replace("{version}", f"TLS {version}") for text in texts)
        rows.append((f"{name}, TLS {version}", standard, fitting, partial(talk, version=version, then=then)))
    return rows


def _flip_at_end(target: Target) -> str:
    return talk(target, "1.2", {"finished": _flipped_finished})


CHECKS = checks(
    "records",
    *(
        (f"hello in records of {size}, TLS {version}", "RFC 8446 5.1", f"TLS {version}", in_records(size, version))
        for version in BOTH
        for size in (1, 2, 3, 5, 17, 64, 255)
    ),
    *(
        (
            f"client's flight in records of {size}, TLS {version}",
            "RFC 8446 5.1",
            f"TLS {version}",
            fragmented(
                version, size, "certificate", "client_key_exchange", "certificate_verify", "finished", mtls=True
            ),
        )
        for version in BOTH
        for size in (1, 3, 100)
    ),
    *_both("request in records of one byte", "RFC 8446 5.1", "{version}", _data_in_pieces(1)),
    *_both("empty records of data", "RFC 8446 5.4", "{version}", _empty_data(20)),
    *_both("empty records of data without end", "RFC 8446 5.4", ("{version}", UNEXPECTED, DECODE), _empty_data(200)),
    *(
        (
            f"empty handshake record before the hello, TLS {version}",
            "RFC 8446 5.1",
            (UNEXPECTED, f"TLS {version}"),
            _hello_with_empty_record(version),
        )
        for version in BOTH
    ),
    (
        "empty handshake record after the handshake, TLS 1.2",
        "RFC 5246 6.2.1",
        (UNEXPECTED, "alert no_renegotiation"),
        lambda target: talk(target, "1.2", then=_empty_handshake),
    ),
    (
        "empty handshake record after the handshake, TLS 1.3",
        "RFC 8446 5.4",
        UNEXPECTED,
        lambda target: talk(target, "1.3", then=_empty_handshake),
    ),
    *_both("record of 2^14 bytes", "RFC 8446 5.1", "{version}", _data_of(2**14)),
    *_both("record of 2^14 + 1 bytes", "RFC 8446 5.1", OVERFLOW, _data_of(2**14 + 1)),
    (
        "record of 2^14 + 257 bytes of ciphertext",
        "RFC 8446 5.2",
        OVERFLOW,
        lambda target: talk(target, "1.3", then=_header(DATA, 2**14 + 257)),
    ),
    (
        "record of 2^14 + 2049 bytes of ciphertext",
        "RFC 5246 6.2.3",
        OVERFLOW,
        lambda target: talk(target, "1.2", then=_header(DATA, 2**14 + 2049)),
    ),
    *_both("record that claims 65,535 bytes", "RFC 8446 5.2", OVERFLOW, _header(DATA, 65535)),
    *(
        (f"first record claims {length:,} bytes", "RFC 8446 5.1", OVERFLOW, _hello_record_of(length))
        for length in (2**14 + 1, 2**14 + 2049, 65535)
    ),
    *_both("record padded to 2^14", "RFC 8446 5.4", "{version}", _padded(2**14 - len(REQUEST)))[1:],
    *_both("record padded beyond 2^14", "RFC 8446 5.4", OVERFLOW, _padded(2**14 - len(REQUEST) + 1))[1:],
    *_both("record of padding alone", "RFC 8446 5.4", UNEXPECTED, _inner(0, b""))[1:],
    *_both("bit of the tag changed", "RFC 8446 5.2", BAD_MAC, _flipped(-1)),
    *_both("bit of the ciphertext changed", "RFC 8446 5.2", BAD_MAC, _flipped(20)),
    *_both("record version changed", "RFC 8446 5.1, 5.2", (BAD_MAC, "alert protocol_version"), _flipped(2)),
    *_both("record too short for a tag", "RFC 8446 5.2", BAD_MAC, _shorter(7)),
    *_both("empty record without a tag", "RFC 8446 5.2", BAD_MAC, _shorter(0)),
    *_both("record replayed", "RFC 8446 5.3", BAD_MAC, _replayed),
    *_both("record left out", "RFC 8446 5.3", BAD_MAC, _skipped),
    ("Finished with a bit of the tag changed, TLS 1.2", "RFC 5246 7.2.2", BAD_MAC, _flip_at_end),
    (
        "Finished with a bit of the tag changed, TLS 1.3",
        "RFC 8446 5.2",
        BAD_MAC,
        lambda target: talk(target, "1.3", {"finished": _flipped_finished}),
    ),
    *_both("unprotected alert after the handshake", "RFC 8446 5", (BAD_MAC, UNEXPECTED), _plain(ALERT, b"\x02\x28")),
    *_both("unprotected data after the handshake", "RFC 8446 5.2", BAD_MAC, _plain(DATA, REQUEST)),
    *_both("unprotected record of unknown type", "RFC 8446 5", (UNEXPECTED, BAD_MAC), _plain(99, b"x")),
    *_both("record of unknown type", "RFC 8446 5", UNEXPECTED, _inner(99, b"x")),
    *_both("heartbeat request that asks for too much", "RFC 6520 3", UNEXPECTED, _inner(24, b"\x01\x40\x00")),
    *(
        (f"first record is of type {kind}", "RFC 8446 5", UNEXPECTED, _first(plain_record(kind, data, 0x0301)))
        for kind, data in ((DATA, b"GET / HTTP/1.1\r\n\r\n"), (CCS, b"\x01"), (24, b"\x01\x40\x00"), (99, b"x"))
    ),
    *(
        (f"hello cut off after {text}", "RFC 8446 6.1", ("closed", "reset", DECODE), _truncated_hello(size))
        for text, size in (
            ("0 bytes", 0),
            ("1 byte", 1),
            ("4 bytes", 4),
            ("5 bytes, the record's header", 5),
            ("9 bytes, the message's header", 9),
            ("half", 0.5),
            ("all but its last bytes", 0.995),
        )
    ),
    *(
        (
            f"client's flight cut off after {size} bytes, TLS {version}",
            "RFC 8446 6.1",
            ("closed", "reset", DECODE),
            _truncated_flight(version, size),
        )
        for version in BOTH
        for size in (0, 3, 5, 20)
    ),
    *_both("data cut off", "RFC 8446 6.1", ("closed", "close_notify", "reset"), _truncated_data),
    ("HTTP in place of TLS", "RFC 8446 6", ANY_REFUSAL, _first(REQUEST)),
    ("SSH in place of TLS", "RFC 8446 6", ANY_REFUSAL, _first(b"SSH-2.0-OpenSSH_9.2\r\n")),
    ("1,000 zeros", "RFC 8446 6", ANY_REFUSAL, _first(bytes(1000))),
    ("1,000 times 0xff", "RFC 8446 6", ANY_REFUSAL, _first(b"\xff" * 1000)),
    *((f"noise {number}", "RFC 8446 6", ANY_REFUSAL, _first(_garbage(number, 300))) for number in range(8)),
    *(
        (f"handshake record of noise {number}", "RFC 8446 6", ANY_REFUSAL, _garbage_in_record(number))
        for number in range(8)
    ),
    *(
        (
            f"noise in place of the client's flight {number}, TLS {version}",
            "RFC 8446 6",
            ANY_REFUSAL,
            _garbage_flight(version, number),
        )
        for version in BOTH
        for number in range(4)
    ),
    *_both("noise after the handshake", "RFC 8446 6", ANY_REFUSAL, _garbage_data),
)
