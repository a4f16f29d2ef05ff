"""Key exchange: the shares that a client may send, and the points that must never make a key."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tests.conformance.check import Run, checks
from tests.conformance.checks.flights import DECODE, ILLEGAL, changed
from tests.conformance.client import Client, talk
from tests.conformance.hello import GROUPS, KEY_SHARE, P256, X25519, edited, message, put, share, u16, vector

P = 2**255 - 19
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
# RFC 7748 6.1: whatever the other side's secret, these give zero. Each also in its other spellings of 256 bits.
LOW_ORDER = {
    f"{text}{spelling}": (u + more).to_bytes(32, "little")
    for text, u in (("0", 0), ("1", 1), ("p - 1", P - 1), *((f"order 8, {n}", u) for n, u in enumerate(ORDER_8, 1)))
    for spelling, more in (("", 0), (" + p", P), (" + 2^255", 2**255))
    if more != P or u + P < 2**255
}
BASE_POINT = 9
CURVE_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
POINTS = {
    "not on the curve": b"\x04" + bytes(63) + b"\x05",
    "compressed": b"\x02" + bytes(32),
    "at infinity": b"\x00",
    "zero": b"\x04" + bytes(64),
    "a coordinate of p": b"\x04" + CURVE_P.to_bytes(32, "big") + bytes(32),
    "a byte short": b"\x04" + bytes(63),
    "empty": b"",
}
NO_KEY = (ILLEGAL, DECODE, "alert handshake_failure", "alert decrypt_error")  # of TLS 1.2, which names none


def _only(group: int, key: bytes) -> Run:
    """One key share, of the only group that is offered."""

    def edit(hello: Any) -> None:
        put(hello, GROUPS, vector(u16(group)))
        put(hello, KEY_SHARE, vector(share(group, key)))

    return edited("1.3", edit)


def _change_share(change: Callable[[bytes], bytes]) -> Run:
    """The client's own X25519 share, in another spelling."""

    def edit(hello: Any) -> None:
        own = next(bytes(one.extData) for one in hello.extensions if one.extType == KEY_SHARE)
        put(hello, KEY_SHARE, vector(share(X25519, change(own[-32:]))))

    return edited("1.3", edit)


class _Echo:
    """With the base point as the client's share the secret is the server's own share."""

    @staticmethod
    def calc_shared_key(_private: Any, peer: Any) -> Any:
        return peer


def _base_point(u: int) -> Run:
    """A share for which the client has no secret, and which is a good one all the same."""

    def hook(client: Client, hello: Any) -> None:
        sent = copy.deepcopy(hello)
        put(sent, KEY_SHARE, vector(share(X25519, u.to_bytes(32, "little"))))
        client.handshake(bytes(sent.write()))
        client._getKEX = lambda *_: _Echo()

    return lambda target: talk(target, "1.3", {"client_hello": hook})


def _twice(hello: Any) -> None:
    own = next(bytes(one.extData)[2:] for one in hello.extensions if one.extType == KEY_SHARE)
    put(hello, KEY_SHARE, vector(own + own))


def _second(edit: Any) -> Run:
    """After a HelloRetryRequest, which a hello without a key share gets."""
    return edited("1.3", edit, "second_client_hello", keyShares=[])


def _exchange(key: bytes, curve: str) -> Run:
    """TLS 1.2: this in the ClientKeyExchange. A certificate of P-256 needs its curve among the groups."""
    return changed(
        "1.2", "client_key_exchange", lambda _data: message(16, vector(key, 1)), eccCurves=[curve, "secp256r1"]
    )


CHECKS = checks(
    "key exchange",
    ("no share yet: HelloRetryRequest", "RFC 8446 4.1.4", "TLS 1.3", lambda t: talk(t, "1.3", keyShares=[])),
    ("share of the less liked group", "RFC 8446 4.2.8", "TLS 1.3", lambda t: talk(t, "1.3", keyShares=["secp256r1"])),
    ("share twice", "RFC 8446 4.2.8", ILLEGAL, edited("1.3", _twice)),
    ("second hello without a share", "RFC 8446 4.2.8", ILLEGAL, _second(lambda h: put(h, KEY_SHARE, vector(b"")))),
    (
        "second hello with another group",
        "RFC 8446 4.2.8",
        ILLEGAL,
        _second(lambda hello: put(hello, KEY_SHARE, vector(share(P256, POINTS["zero"])))),
    ),
    ("X25519: the base point", "RFC 7748 5", "TLS 1.3", _base_point(BASE_POINT)),
    ("X25519: the base point + p", "RFC 7748 5", "TLS 1.3", _base_point(BASE_POINT + P)),
    ("X25519: the base point + 2^255", "RFC 7748 5", "TLS 1.3", _base_point(BASE_POINT + 2**255)),
    (
        "X25519: a share with its highest bit set",
        "RFC 7748 5",
        "TLS 1.3",
        _change_share(lambda key: key[:-1] + bytes([key[-1] | 0x80])),
    ),
    *((f"X25519: {text}", "RFC 7748 6.1", ILLEGAL, _only(X25519, key)) for text, key in LOW_ORDER.items()),
    *(
        (f"X25519: {text}, TLS 1.2", "RFC 8422 5.11", NO_KEY, _exchange(key, "x25519"))
        for text, key in LOW_ORDER.items()
    ),
    *(
        (f"X25519: {size} bytes", "RFC 8446 4.2.8.2", (ILLEGAL, DECODE), _only(X25519, bytes(size * [9])))
        for size in (0, 31, 33)
    ),
    *((f"P-256: {text}", "RFC 8446 4.2.8.2", (ILLEGAL, DECODE), _only(P256, key)) for text, key in POINTS.items()),
    *(
        (f"P-256: {text}, TLS 1.2", "RFC 8422 5.11", NO_KEY, _exchange(key, "secp256r1"))
        for text, key in POINTS.items()
    ),
)
