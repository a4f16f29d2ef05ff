"""Extensions and the other fields of the hello: what is unknown is ignored, what is malformed is refused."""

from __future__ import annotations

from typing import Any

from tlslite.constants import ContentType

from tests.conformance.check import Run, checks
from tests.conformance.client import Client, talk
from tests.conformance.hello import (
    ALPN,
    EARLY_DATA,
    GROUPS,
    HEARTBEAT,
    KEY_SHARE,
    MASTER_SECRET,
    P256,
    PRE_SHARED_KEY,
    PSK_MODES,
    SERVER_NAME,
    SIGNATURE_ALGORITHMS,
    VERSIONS,
    X25519,
    appending,
    drop,
    dropping,
    edited,
    extension,
    message,
    plain_record,
    prepending,
    put,
    putting,
    setting,
    share,
    u16,
    vector,
)

DECODE, ILLEGAL = "alert decode_error", "alert illegal_parameter"
MISSING, FAILURE = "alert missing_extension", "alert handshake_failure"
GREASE = 0x7A7A
BOTH = ("1.2", "1.3")


def _bytes(version: str, change: Any) -> Run:
    """The hello's bytes, changed."""
    return edited(version, lambda hello: change(bytes(hello.write())))


def _longer(data: bytes) -> bytes:
    """Bytes behind the last extension, inside the message."""
    return message(1, data[4:] + b"\x00\x00\x00")


def _overrun(data: bytes) -> bytes:
    """The last extension says that it is longer than what is left."""
    return data[:-1]


def _short_message(data: bytes) -> bytes:
    return message(1, data[4:-1])


def _no_extension_block(hello: Any) -> None:
    hello.extensions = None


def _large(version: str, size: int) -> Run:
    """A hello of exactly `size` bytes, header included, by an extension that nobody knows."""

    def edit(hello: Any) -> None:
        hello.extensions.append(extension(0xFAFE, bytes(size - len(hello.write()) - 4)))

    return edited(version, edit)


def _grease(hello: Any) -> None:
    """RFC 8701: reserved values wherever a client may put them."""
    hello.cipher_suites.insert(0, GREASE)
    hello.extensions.insert(0, extension(GREASE))
    hello.extensions.append(extension(0xEAEA, b"\x00"))
    for one in hello.extensions:
        if one.extType == GROUPS:
            one.groups = [GREASE, *one.groups]
        if one.extType == SIGNATURE_ALGORITHMS:
            one.sigalgs = [(0x7A, 0x7A), *one.sigalgs]
    for one in list(hello.extensions):
        if one.extType == KEY_SHARE:
            put(hello, KEY_SHARE, vector(share(GREASE, b"\x00") + bytes(one.extData)[2:]))


def _psk(identity: bytes = b"x" * 32) -> bytes:
    return vector(vector(identity) + bytes(4)) + vector(vector(bytes(32), 1))


def _psk_first(hello: Any) -> None:
    hello.extensions.insert(0, extension(PRE_SHARED_KEY, _psk()))


def _psk_without_modes(hello: Any) -> None:
    drop(hello, PSK_MODES)
    hello.extensions.append(extension(PRE_SHARED_KEY, _psk()))


def _early_data(records: int, size: int) -> Run:
    """0-RTT data that nobody asked for: the server skips what it cannot decrypt (RFC 8446 4.2.10)."""

    def hook(client: Client, hello: Any) -> None:
        hello.extensions += [extension(EARLY_DATA), extension(PRE_SHARED_KEY, _psk())]
        client.handshake(bytes(hello.write()))
        for _ in range(records):
            client.raw(plain_record(ContentType.application_data, bytes(size)))

    return lambda target: talk(target, "1.3", {"client_hello": hook})


CHECKS = checks(
    "extensions",
    *(
        (f"{text}, TLS {version}", standard, f"TLS {version}", run)
        for version in BOTH
        for text, standard, run in (
            ("unknown extension", "RFC 8446 4.1.2", appending(version, extension(0xFAFE, b"what is this"))),
            ("unknown extension without data", "RFC 8446 4.1.2", prepending(version, extension(0xFAFE))),
            (
                "200 unknown extensions",
                "RFC 8446 4.1.2",
                prepending(version, *(extension(0xA000 + i, bytes(i % 7)) for i in range(200))),
            ),
            ("GREASE everywhere", "RFC 8701 3.1", edited(version, _grease)),
            ("hello of 4 KiB", "RFC 8446 4.1.2", _large(version, 4096)),
            ("hello of 16,384 bytes", "RFC 8446 4.1.2", _large(version, 16384)),
            ("heartbeat offered", "RFC 6520 2", appending(version, extension(HEARTBEAT, b"\x01"))),
            ("ALPN that nobody speaks", "RFC 7301 3.2", putting(version, ALPN, vector(vector(b"tls/0", 1)))),
            (
                "server name that nobody has",
                "RFC 6066 3",
                putting(version, SERVER_NAME, vector(b"\x00" + vector(b"x"))),
            ),
            ("no server name", "RFC 6066 3", dropping(version, SERVER_NAME)),
            (
                "unknown groups first",
                "RFC 8446 4.2.7",
                putting(version, GROUPS, vector(u16(0x6399) + u16(X25519) + u16(P256))),
            ),
            (
                "300 unknown cipher suites",
                "RFC 8446 4.1.2",
                edited(version, lambda hello: hello.cipher_suites.extend(range(0xD000, 0xD12C))),
            ),
            (
                "compression methods null, DEFLATE" if version == "1.2" else "session ID empty",
                "RFC 5246 7.4.1.2",
                setting(version, compression_methods=[1, 0])
                if version == "1.2"
                else setting(version, session_id=bytearray()),
            ),
        )
    ),
    *(
        (f"{text}, TLS {version}", standard, expected, run)
        for version in BOTH
        for text, standard, expected, run in (
            (
                "unknown extension twice",
                "RFC 8446 4.2",
                (ILLEGAL, DECODE),
                appending(version, extension(0xFAFE), extension(0xFAFE)),
            ),
            (
                "known extension twice",
                "RFC 8446 4.2",
                (ILLEGAL, DECODE),
                appending(version, extension(MASTER_SECRET), extension(MASTER_SECRET)),
            ),
            ("bytes behind the last extension", "RFC 8446 4.1.2", DECODE, _bytes(version, _longer)),
            ("last extension overruns the message", "RFC 8446 6", DECODE, _bytes(version, _short_message)),
            ("server name: empty list", "RFC 6066 3", DECODE, putting(version, SERVER_NAME, vector(b""))),
            ("server name: empty", "RFC 6066 3", DECODE, putting(version, SERVER_NAME, vector(b"\x00" + vector(b"")))),
            (
                "server name with a NUL",
                "RFC 6066 3",
                (DECODE, ILLEGAL, "alert unrecognized_name"),
                putting(version, SERVER_NAME, vector(b"\x00" + vector(b"conformance.test\x00.evil"))),
            ),
            (
                "two server names",
                "RFC 6066 3",
                (DECODE, ILLEGAL),
                putting(version, SERVER_NAME, vector((b"\x00" + vector(b"a.test")) + (b"\x00" + vector(b"b.test")))),
            ),
            ("ALPN: empty list", "RFC 7301 3.1", DECODE, putting(version, ALPN, vector(b""))),
            ("ALPN: empty name", "RFC 7301 3.1", DECODE, putting(version, ALPN, vector(b"\x00"))),
            ("groups: empty list", "RFC 8446 4.2.7", (DECODE, FAILURE), putting(version, GROUPS, vector(b""))),
            ("groups: half a group", "RFC 8446 4.2.7", DECODE, putting(version, GROUPS, vector(b"\x00\x1d\x00"))),
            ("no group in common", "RFC 8446 4.1.1", FAILURE, putting(version, GROUPS, vector(u16(0x6399)))),
            (
                "signature algorithms: empty list",
                "RFC 8446 4.2.3",
                (DECODE, FAILURE),
                putting(version, SIGNATURE_ALGORITHMS, vector(b"")),
            ),
            (
                "no signature algorithm in common",
                "RFC 8446 4.2.3",
                FAILURE,
                putting(version, SIGNATURE_ALGORITHMS, vector(b"\x63\x99")),
            ),
            (
                "only SHA-1 signatures",
                "RFC 9155 2, 4",
                FAILURE,
                putting(version, SIGNATURE_ALGORITHMS, vector(bytes.fromhex("02010203"))),
            ),
            ("session ID of 33 bytes", "RFC 8446 4.1.2", DECODE, setting(version, session_id=bytearray(33))),
            ("no cipher suites", "RFC 8446 4.1.2", (DECODE, FAILURE), setting(version, cipher_suites=[])),
            ("no cipher suite in common", "RFC 8446 4.1.1", FAILURE, setting(version, cipher_suites=[0xD000])),
            ("no compression methods", "RFC 8446 4.1.2", (DECODE, ILLEGAL), setting(version, compression_methods=[])),
            ("only DEFLATE", "RFC 3749 2", (ILLEGAL, DECODE, FAILURE), setting(version, compression_methods=[1])),
        )
    ),
    (
        "hello larger than 16 KiB",
        "RFC 8446 4.1.2",
        ("TLS 1.3", ILLEGAL, DECODE),
        _large("1.3", 40_000),
    ),
    *(
        (f"hello of {size} bytes, TLS 1.2", "RFC 7685 4", "TLS 1.2", _large("1.2", size))
        for size in (300, 400, 511, 512)
    ),
    ("no extensions at all, TLS 1.2", "RFC 5246 7.4.1.2", ("TLS 1.2", FAILURE), edited("1.2", _no_extension_block)),
    ("extended_master_secret with data", "RFC 7627 5.1", DECODE, putting("1.2", MASTER_SECRET, b"\x00")),
    ("compression beside TLS 1.3", "RFC 8446 4.1.2", ILLEGAL, setting("1.3", compression_methods=[1, 0])),
    ("no signature algorithms", "RFC 8446 9.2", MISSING, dropping("1.3", SIGNATURE_ALGORITHMS)),
    ("no groups beside key shares", "RFC 8446 9.2", MISSING, dropping("1.3", GROUPS)),
    ("no key shares beside groups", "RFC 8446 9.2", MISSING, dropping("1.3", KEY_SHARE)),
    (
        "second hello without TLS 1.3",
        "RFC 8446 4.1.2",
        (ILLEGAL, "alert protocol_version"),
        edited("1.3", lambda hello: put(hello, VERSIONS, b"\x02\x03\x03"), "second_client_hello", keyShares=[]),
    ),
    ("unknown PSK", "RFC 8446 4.2.11", "TLS 1.3", appending("1.3", extension(PRE_SHARED_KEY, _psk()))),
    ("PSK not last", "RFC 8446 4.2.11", ILLEGAL, edited("1.3", _psk_first)),
    ("PSK without its modes", "RFC 8446 4.2.9", MISSING, edited("1.3", _psk_without_modes)),
    (
        "PSK with fewer binders than identities",
        "RFC 8446 4.2.11",
        (ILLEGAL, DECODE),
        appending(
            "1.3", extension(PRE_SHARED_KEY, vector(2 * (vector(b"x" * 32) + bytes(4))) + vector(vector(bytes(32), 1)))
        ),
    ),
    ("early data that is refused is skipped", "RFC 8446 4.2.10", "TLS 1.3", _early_data(3, 1000)),
    (
        "more early data than anybody skips",
        "RFC 8446 4.2.10",
        ("alert unexpected_message", "alert bad_record_mac"),
        _early_data(8, 16384),
    ),
)
