"""The other direction: what our socket, as a cluster's client, lets a server do. A refused server's caller gets 503."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from tlslite.constants import TLS_1_1_DOWNGRADE_SENTINEL, TLS_1_2_DOWNGRADE_SENTINEL, TLS_1_3_HRR

from tests.conformance.check import Row, Run, checks
from tests.conformance.checks.flights import (
    ALERT,
    BAD_MAC,
    CCS,
    DATA,
    DECODE,
    DECRYPT,
    HANDSHAKE,
    ILLEGAL,
    UNEXPECTED,
    both,
    empty,
    last_bit,
    nothing,
    one_more,
)
from tests.conformance.checks.records import ANY_REFUSAL
from tests.conformance.hello import KEY_SHARE, VERSIONS, extension, message, plain_record, put, share, u16
from tests.conformance.hello import X25519 as GROUP
from tests.conformance.scripted import Hook, Scripted
from tests.conformance.server import serve, talk

UNSUPPORTED, VERSION = "alert unsupported_extension", "alert protocol_version"
ENDED = ("closed", "reset", "close_notify")
KEY_UPDATE, CERTIFICATE_REQUEST = 24, 13


def _hooked(version: str, name: str, hook: Hook, **more: Any) -> Run:
    def flushing(server: Scripted, sent: Any) -> None:
        hook(server, sent)
        server.flush()

    return partial(talk, version=version, hooks={name: flushing}, **more)


def _changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[str], Run]:
    """The message's bytes, changed; the transcript has what was sent."""

    def hook(server: Scripted, sent: Any) -> None:
        server.handshake(change(bytes(sent.write())))

    return lambda version: _hooked(version, name, hook)


def _left_out(*names: str) -> Callable[[str], Run]:
    return lambda version: partial(talk, version=version, hooks=dict.fromkeys(names, nothing))


def _before(name: str, content_type: int, data: bytes) -> Callable[[str], Run]:
    def hook(server: Scripted, sent: Any) -> None:
        server.record(content_type, data)
        server.handshake(bytes(sent.write()))

    return lambda version: _hooked(version, name, hook)


def _instead(name: str, data: bytes) -> Callable[[str], Run]:
    """Bytes without a record of their own, and nothing more."""

    def hook(server: Scripted, _sent: Any) -> None:
        server.raw(data)

    return lambda version: _hooked(version, name, hook)


def _cut(name: str) -> Callable[[str], Run]:
    def hook(server: Scripted, sent: Any) -> None:
        server.raw(server.sealed(HANDSHAKE, bytes(sent.write()))[:20])
        server.flush()
        server.sock.buffer_writes = False
        server.wire.finish()

    return lambda version: _hooked(version, name, hook)


def _hello(edit: Callable[[Any], None]) -> Callable[[str], Run]:
    """A ServerHello that is edited on its way."""

    def hook(server: Scripted, hello: Any) -> None:
        fresh = copy.deepcopy(hello)
        edit(fresh)
        server.handshake(bytes(fresh.write()))

    return lambda version: _hooked(version, "server_hello", hook)


def _field(name: str, value: Any) -> Callable[[str], Run]:
    return _hello(lambda hello: setattr(hello, name, value))


def _random_ends(sentinel: bytes) -> Callable[[str], Run]:
    return _hello(lambda hello: setattr(hello, "random", hello.random[:-8] + bytearray(sentinel)))


def _extensions(edit: Callable[[Any], None]) -> Callable[[str], Run]:
    """EncryptedExtensions, edited."""

    def hook(server: Scripted, sent: Any) -> None:
        fresh = copy.deepcopy(sent)
        edit(fresh)
        server.handshake(bytes(fresh.write()))

    return lambda version: _hooked(version, "encrypted_extensions", hook)


def _fragmented(size: int) -> Callable[[str], Run]:
    names: tuple[str, ...]
    names = ("server_hello", "encrypted_extensions", "certificate", "certificate_verify", "server_key_exchange")
    names += ("server_hello_done", "finished")

    def hook(server: Scripted, sent: Any) -> None:
        server.handshake(bytes(sent.write()), size)

    return lambda version: partial(talk, version=version, hooks=dict.fromkeys(names, hook))


def _flipped(name: str) -> Callable[[str], Run]:
    """A bit of the tag is another."""

    def hook(server: Scripted, sent: Any) -> None:
        record = server.sealed(HANDSHAKE, bytes(sent.write()))
        record[-1] ^= 1
        server.raw(record)

    return lambda version: _hooked(version, name, hook)


def _afterwards(content_type: int, data: bytes) -> Callable[[str], Run]:
    """In place of an answer to the request, which comes together with the client's Finished."""

    def then(server: Scripted) -> str:
        assert server.read(min=1)
        server.record(content_type, data)
        return "close_notify" if not server.read(min=1) else "read on"

    return lambda version: partial(talk, version=version, then=then)


def _updates(server: Scripted) -> str:
    for _ in server.send_keyupdate_request(1):
        pass
    return serve(server)


def _answer_flipped(server: Scripted) -> str:
    """The answer to the request is forged."""
    assert server.read(min=1)
    record = server.sealed(DATA, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    record[-1] ^= 1
    server.raw(record)
    return "close_notify" if not server.read(min=1) else "read on"


def _retry(hello: Any) -> None:
    """HelloRetryRequest for the share that is there."""
    hello.random = bytearray(TLS_1_3_HRR)
    put(hello, KEY_SHARE, u16(GROUP))


ONLY13 = ("1.3",)
ONLY12 = ("1.2",)


def _of(versions: tuple[str, ...], name: str, standard: str, expected: Any, make: Callable[[str], Run]) -> list[Row]:
    return [(f"{name}, TLS {version}", standard, expected, make(version)) for version in versions]


def _fitting(name: str, standard: str, make: Callable[[str], Run]) -> list[Row]:
    """Served."""
    return [(f"{name}, TLS {v}", standard, f"TLS {v}", make(v)) for v in ("1.2", "1.3")]


CHECKS = checks(
    "upstream",
    *_fitting("nothing special", "RFC 8446 2", _left_out()),
    *_fitting("client certificate asked for", "RFC 8446 4.4.3", lambda v: partial(talk, version=v, asks=True)),
    *_fitting("server's flight in records of 1", "RFC 8446 5.1", _fragmented(1)),
    *_fitting("server's flight in records of 100", "RFC 8446 5.1", _fragmented(100)),
    *both(
        "certificate of a stranger",
        "RFC 8446 6.2",
        "alert unknown_ca",
        lambda v: partial(talk, version=v, identity="stranger"),
    ),
    *both(
        "certificate of another name",
        "RFC 8446 6.2",
        ("alert access_denied", "alert certificate_unknown", "alert bad_certificate"),
        lambda v: partial(talk, version=v, identity="other"),
    ),
    *both("Finished is wrong", "RFC 8446 4.4.4", DECRYPT, _changed("finished", last_bit)),
    *both("Finished is empty", "RFC 8446 4.4.4", (DECRYPT, DECODE), _changed("finished", empty)),
    *both("Finished with a bit of the tag changed", "RFC 8446 5.2", BAD_MAC, _flipped("finished")),
    *both("Finished cut off", "RFC 8446 6.1", ("closed", "reset", DECODE), _cut("finished")),
    *both("certificate left out", "RFC 8446 4.4.2", (UNEXPECTED, ILLEGAL), _left_out("certificate")),
    *both("Certificate is empty", "RFC 8446 4.4.2", DECODE, _changed("certificate", empty)),
    *both("Certificate with a byte more", "RFC 8446 4.4.2", DECODE, _changed("certificate", one_more)),
    *both("cipher suite that was not offered", "RFC 8446 4.1.3", ILLEGAL, _field("cipher_suite", 0x009C)),
    *both("cipher suite that nobody knows", "RFC 8446 4.1.3", ILLEGAL, _field("cipher_suite", 0xD000)),
    *both("compression", "RFC 8446 4.1.3", (ILLEGAL, DECODE), _field("compression_method", 1)),
    *both(
        "extension that was not asked for",
        "RFC 8446 4.2",
        UNSUPPORTED,
        _hello(lambda hello: hello.extensions.append(extension(0xFAFE))),
    ),
    *both(
        "message of nobody before the hello",
        "RFC 8446 4",
        UNEXPECTED,
        _before("server_hello", HANDSHAKE, message(99, b"x")),
    ),
    *both(
        "ClientHello from the server",
        "RFC 8446 4",
        UNEXPECTED,
        _before("server_hello", HANDSHAKE, message(1, bytes(60))),
    ),
    *both("data before the hello", "RFC 8446 5", UNEXPECTED, _before("server_hello", DATA, b"HTTP/1.1 200 OK\r\n\r\n")),
    *both(
        "ChangeCipherSpec of 0x02 before the hello",
        "RFC 8446 5",
        (UNEXPECTED, ILLEGAL, DECODE),
        _before("server_hello", CCS, b"\x02"),
    ),
    *both(
        "fatal alert instead of a hello",
        "RFC 8446 6.2",
        ENDED,
        _instead("server_hello", plain_record(ALERT, b"\x02\x28")),
    ),
    *both(
        "record above 2^14",
        "RFC 8446 5.1",
        "alert record_overflow",
        _instead("server_hello", plain_record(HANDSHAKE, bytes(2**14 + 1))),
    ),
    *both(
        "HTTP instead of TLS", "RFC 8446 6", ANY_REFUSAL, _instead("server_hello", b"HTTP/1.1 400 Bad Request\r\n\r\n")
    ),
    *both("noise instead of TLS", "RFC 8446 6", ANY_REFUSAL, _instead("server_hello", b"\x9a" * 300)),
    *both("heartbeat request", "RFC 6520 3", UNEXPECTED, _afterwards(24, b"\x01\x40\x00")),
    *both("unknown record type", "RFC 8446 5", UNEXPECTED, _afterwards(99, b"x")),
    *both(
        "answer with a bit of the tag changed",
        "RFC 8446 5.2",
        BAD_MAC,
        lambda v: partial(talk, version=v, then=_answer_flipped),
    ),
    # TLS 1.2
    *_of(ONLY12, "TLS 1.1", "RFC 8996 5", VERSION, _field("server_version", (3, 2))),
    *_of(ONLY12, "SSL 3.0", "RFC 7568 3", VERSION, _field("server_version", (3, 0))),
    *_of(ONLY12, "downgrade sentinel for TLS 1.2", "RFC 8446 4.1.3", ILLEGAL, _random_ends(TLS_1_2_DOWNGRADE_SENTINEL)),
    *_of(ONLY12, "downgrade sentinel for TLS 1.1", "RFC 8446 4.1.3", ILLEGAL, _random_ends(TLS_1_1_DOWNGRADE_SENTINEL)),
    *_of(
        ONLY12,
        "signature of ServerKeyExchange is wrong",
        "RFC 5246 7.4.3",
        DECRYPT,
        _changed("server_key_exchange", last_bit),
    ),
    *_of(ONLY12, "ServerKeyExchange left out", "RFC 5246 7.4.3", UNEXPECTED, _left_out("server_key_exchange")),
    *_of(ONLY12, "ServerHelloDone with a byte", "RFC 5246 7.4.5", DECODE, _changed("server_hello_done", one_more)),
    *_of(ONLY12, "ChangeCipherSpec left out", "RFC 5246 7.4.9", UNEXPECTED, _left_out("change_cipher_spec")),
    *_of(
        ONLY12,
        "renegotiation asked for",
        "RFC 9325 3.5",
        ("alert no_renegotiation", "no_renegotiation"),
        _afterwards(HANDSHAKE, message(0, b"")),
    ),
    # TLS 1.3
    *_of(ONLY13, "CertificateVerify is wrong", "RFC 8446 4.4.3", DECRYPT, _changed("certificate_verify", last_bit)),
    *_of(ONLY13, "CertificateVerify left out", "RFC 8446 4.4.3", UNEXPECTED, _left_out("certificate_verify")),
    *_of(
        ONLY13,
        "certificate and CertificateVerify left out",
        "RFC 8446 4.4",
        UNEXPECTED,
        _left_out("certificate", "certificate_verify"),
    ),
    *_of(ONLY13, "EncryptedExtensions left out", "RFC 8446 4.3.1", UNEXPECTED, _left_out("encrypted_extensions")),
    *_of(
        ONLY13,
        "unknown encrypted extension",
        "RFC 8446 4.2",
        UNSUPPORTED,
        _extensions(lambda sent: sent.extensions.append(extension(0xFAFE))),
    ),
    *_of(
        ONLY13,
        "key_share among the encrypted extensions",
        "RFC 8446 4.2",
        (ILLEGAL, UNSUPPORTED),
        _extensions(lambda sent: sent.extensions.append(extension(KEY_SHARE, bytes(4)))),
    ),
    *_of(ONLY13, "session ID is another", "RFC 8446 4.1.3", ILLEGAL, _field("session_id", bytearray(32))),
    *_of(
        ONLY13,
        "version that was not offered",
        "RFC 8446 4.2.1",
        (ILLEGAL, VERSION),
        _hello(lambda hello: put(hello, VERSIONS, u16(0x0305))),
    ),
    *_of(
        ONLY13,
        "supported_versions says TLS 1.2",
        "RFC 8446 4.2.1",
        ILLEGAL,
        _hello(lambda hello: put(hello, VERSIONS, u16(0x0303))),
    ),
    *_of(
        ONLY13,
        "key share: X25519 zero",
        "RFC 7748 6.1",
        ILLEGAL,
        _hello(lambda hello: put(hello, KEY_SHARE, share(GROUP, bytes(32)))),
    ),
    *_of(
        ONLY13,
        "key share: of a group that was not offered",
        "RFC 8446 4.2.8",
        ILLEGAL,
        _hello(lambda hello: put(hello, KEY_SHARE, share(0x001E, bytes(56)))),
    ),
    *_of(ONLY13, "HelloRetryRequest that changes nothing", "RFC 8446 4.1.4", ILLEGAL, _hello(_retry)),
    *_of(
        ONLY13, "key update asked for", "RFC 8446 4.6.3", "TLS 1.3", lambda v: partial(talk, version=v, then=_updates)
    ),
    *_of(
        ONLY13,
        "certificate request after the handshake",
        "RFC 8446 4.6.2",
        UNEXPECTED,
        _afterwards(
            HANDSHAKE, message(CERTIFICATE_REQUEST, b"\x01x" + u16(8) + u16(13) + u16(4) + u16(2) + u16(0x0403))
        ),
    ),
    *_of(
        ONLY13,
        "unknown message after the handshake",
        "RFC 8446 4.6",
        UNEXPECTED,
        _afterwards(HANDSHAKE, message(99, b"x")),
    ),
)
