"""Versions: those of the past are refused, those of the future tolerated, and nobody is talked down."""

from __future__ import annotations

from typing import Any

from tlslite.constants import TLS_1_2_DOWNGRADE_SENTINEL, ContentType

from tests.conformance.check import Run, checks
from tests.conformance.client import Client, request, send_plainly, talk
from tests.conformance.hello import (
    VERSIONS,
    edited,
    plain_record,
    put,
    putting,
    sending,
    setting,
    u16,
    vector,
)
from tests.conformance.rig import Target

REFUSED = "alert protocol_version"
FALLBACK_SCSV = 0x5600


def _supported(*versions: int) -> bytes:
    return vector(b"".join(map(u16, versions)), 1)


def _legacy(version: int) -> Run:
    return setting("1.2", client_version=(version >> 8, version & 0xFF))


def _record_version(version: int) -> Run:
    return sending(lambda hello: plain_record(ContentType.handshake, hello, version))


def _legacy_beside_extension(version: int) -> Run:
    return setting("1.3", client_version=(version >> 8, version & 0xFF))


def _fallback(version: str) -> Run:
    return edited(version, lambda hello: hello.cipher_suites.append(FALLBACK_SCSV))


def _sentinel(supported: bytes | None) -> Run:
    """A client that says TLS 1.2 is its best: does the server's random tell that it could have done better?"""

    def hook(client: Client, hello: Any) -> None:
        if supported is not None:
            put(hello, VERSIONS, supported)
        client.handshake(bytes(hello.write()))

    def look(client: Client) -> str:
        assert client.server_hello is not None
        present = client.server_hello.random[-8:] == TLS_1_2_DOWNGRADE_SENTINEL
        return f"{request(client)}, {'sentinel' if present else 'no sentinel'}"

    return lambda target: talk(target, "1.2", {"client_hello": hook}, look)


def _sslv2(target: Target) -> str:
    """A client hello of SSL 2.0 that also says TLS 1.2: the oldest way to begin."""
    body = bytes([1]) + u16(0x0303) + u16(6) + u16(0) + u16(16) + bytes.fromhex("00c02f00009c") + bytes(16)
    return send_plainly(target, u16(0x8000 | len(body)) + body)


CHECKS = checks(
    "versions",
    *(
        (f"{name} and nothing newer", "RFC 8996 4, 5", REFUSED, _legacy(version))
        for name, version in {"SSL 3.0": 0x0300, "TLS 1.0": 0x0301, "TLS 1.1": 0x0302}.items()
    ),
    ("SSL 2.0 hello", "RFC 6176 3", (REFUSED, "alert handshake_failure", "alert unexpected_message", "closed"), _sslv2),
    *(
        (f"legacy_version {version:#06x} without supported_versions", "RFC 8446 4.2.1", "TLS 1.2", _legacy(version))
        for version in (0x0303, 0x0304, 0x0305, 0x03FF, 0x0400, 0xFFFF)
    ),
    *(
        (
            f"legacy_version {version:#06x} beside supported_versions",
            "RFC 8446 4.2.1",
            "TLS 1.3",
            _legacy_beside_extension(version),
        )
        for version in (0x0304, 0x0305)
    ),
    *(
        (f"supported_versions: {text}", "RFC 8446 4.2.1", expected, putting(version, VERSIONS, _supported(*listed)))
        for text, version, listed, expected in (
            ("0x0305, TLS 1.3", "1.3", (0x0305, 0x0304), "TLS 1.3"),
            ("TLS 1.2, TLS 1.3 (the server chooses)", "1.3", (0x0303, 0x0304), "TLS 1.3"),
            ("GREASE, TLS 1.3, GREASE", "1.3", (0x0A0A, 0x0304, 0xFAFA), "TLS 1.3"),
            ("100 unknown, TLS 1.3", "1.3", (*range(0x0400, 0x0464), 0x0304), "TLS 1.3"),
            ("0x0305, TLS 1.2", "1.2", (0x0305, 0x0303), "TLS 1.2"),
            ("TLS 1.3 draft 28, TLS 1.2", "1.2", (0x7F1C, 0x0303), "TLS 1.2"),
            ("only 0x0305", "1.3", (0x0305,), REFUSED),
            ("only TLS 1.3 draft 28", "1.3", (0x7F1C,), REFUSED),
            ("only TLS 1.1, TLS 1.0", "1.2", (0x0302, 0x0301), REFUSED),
        )
    ),
    ("supported_versions: empty list", "RFC 8446 4.2.1", "alert decode_error", putting("1.3", VERSIONS, b"\x00")),
    (
        "supported_versions: half a version",
        "RFC 8446 4.2.1",
        "alert decode_error",
        putting("1.3", VERSIONS, b"\x03\x03\x04\x03"),
    ),
    *(
        (f"first record says {version:#06x}", "RFC 8446 5.1", "TLS 1.3", _record_version(version))
        for version in (0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0x03FF)
    ),
    ("downgrade sentinel, no supported_versions", "RFC 8446 4.1.3", "TLS 1.2, sentinel", _sentinel(None)),
    (
        "downgrade sentinel, supported_versions: TLS 1.2",
        "RFC 8446 4.1.3",
        "TLS 1.2, sentinel",
        _sentinel(_supported(0x0303)),
    ),
    ("TLS_FALLBACK_SCSV with TLS 1.2", "RFC 7507 3", "alert inappropriate_fallback", _fallback("1.2")),
    ("TLS_FALLBACK_SCSV with TLS 1.3", "RFC 7507 3", "TLS 1.3", _fallback("1.3")),
)
