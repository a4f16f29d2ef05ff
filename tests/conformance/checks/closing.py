"""The end of a connection, by alert, by close_notify, or without a word."""

from __future__ import annotations

from collections.abc import Callable

from tlslite.constants import AlertDescription

from tests.conformance.check import Run, checks
from tests.conformance.checks.flights import ALERT, DATA, DECODE, UNEXPECTED, before, both
from tests.conformance.client import CLOSE_NOTIFY, REQUEST, Client, answer, request, talk

ENDED = ("close_notify", "closed", "reset")
LAST_REQUEST = REQUEST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


def _served(client: Client) -> None:
    got = request(client)
    assert got.startswith("TLS"), got


def _close(client: Client) -> str:
    client.record(ALERT, CLOSE_NOTIFY)
    return answer(client)


def _close_after_request(client: Client) -> str:
    _served(client)
    return _close(client)


def _silent_end(client: Client) -> str:
    _served(client)
    client.wire.finish()
    return answer(client)


def _end_of_server(client: Client) -> str:
    """The server closes after its answer: first it says so."""
    client.record(DATA, LAST_REQUEST)
    if not (first := answer(client)).startswith("TLS"):
        return first
    return answer(client)


def _request_behind_close(client: Client) -> str:
    """What comes behind close_notify is not read."""
    client.record(ALERT, CLOSE_NOTIFY)
    client.record(DATA, REQUEST)
    return answer(client)


def _alert(*records: bytes) -> Callable[[str], Run]:
    def make(version: str) -> Run:
        def then(client: Client) -> str:
            for data in records:
                client.record(ALERT, data)
            return request(client)

        return lambda target: talk(target, version, then=then)

    return make


def _simply(then: Callable[[Client], str]) -> Callable[[str], Run]:
    return lambda version: lambda target: talk(target, version, then=then)


CHECKS = checks(
    "closing",
    *both("close_notify", "RFC 8446 6.1", ENDED, _simply(_close)),
    *both("close_notify after a request", "RFC 8446 6.1", ENDED, _simply(_close_after_request)),
    *both("FIN without close_notify", "RFC 8446 6.1", ENDED, _simply(_silent_end)),
    *both("server closes", "RFC 8446 6.1", "close_notify", _simply(_end_of_server)),
    *both("request behind close_notify", "RFC 8446 6.1", ENDED, _simply(_request_behind_close)),
    *both("fatal alert", "RFC 8446 6.2", ("closed", "reset"), _alert(bytes([2, AlertDescription.internal_error]))),
    *both("fatal alert of unknown kind", "RFC 8446 6.2", ("closed", "reset"), _alert(b"\x02\xfa")),
    *both("alert of unknown level", "RFC 8446 6", (DECODE, "alert illegal_parameter", "closed"), _alert(b"\x05\x28")),
    *both("alert of one byte", "RFC 8446 6", (DECODE, UNEXPECTED), _alert(b"\x02")),
    *both("empty alert", "RFC 8446 5.1", (UNEXPECTED, DECODE), _alert(b"")),
    *both("two alerts in one record", "RFC 8446 5.1", (UNEXPECTED, DECODE), _alert(2 * b"\x01\x5a")),
    ("warning of unknown kind, TLS 1.2", "RFC 5246 7.2", ("TLS 1.2", *ENDED), _alert(b"\x01\xfa")("1.2")),
    ("warning of unknown kind, TLS 1.3", "RFC 8446 6", ("closed", "reset", DECODE), _alert(b"\x01\xfa")("1.3")),
    *both("200 warnings", "RFC 8446 6.1", ("closed", "reset", UNEXPECTED, DECODE), _alert(*200 * [b"\x01\x5a"])),
    *both(
        "fatal alert before the hello",
        "RFC 8446 6.2",
        ("closed", "reset"),
        lambda version: before(version, "client_hello", ALERT, b"\x02\x28"),
    ),
    *both(
        "close_notify before the hello",
        "RFC 8446 6.1",
        ("closed", "close_notify", "reset"),
        lambda version: before(version, "client_hello", ALERT, CLOSE_NOTIFY),
    ),
    *both(
        "fatal alert before Finished",
        "RFC 8446 6.2",
        ("closed", "reset"),
        lambda version: before(version, "finished", ALERT, b"\x02\x2a"),
    ),
)
