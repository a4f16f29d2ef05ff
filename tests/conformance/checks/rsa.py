"""RSA key exchange, which is off unless somebody asks for it: no answer tells what was wrong with a ciphertext."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tlslite.messages import ClientKeyExchange
from tlslite.utils.cryptomath import bytesToNumber, numberToByteArray

from tests.conformance.check import Run, checks
from tests.conformance.client import Client, talk
from tests.conformance.hello import message, vector

SIZE = 256  # bytes of a modulus of 2048 bits
ALIKE = "alert bad_record_mac"  # the keys differ, so Finished cannot be read
# Not a secret: whoever sends a ciphertext knows its length, and that it is no number below the modulus.
REFUSED = (ALIKE, "closed", "alert decode_error", "alert decrypt_error", "alert illegal_parameter")
NOISE = random.Random(20260801)
VERSION = b"\x03\x03"
SECRET = NOISE.randbytes(46)


def _padding(size: int) -> bytes:
    return bytes(NOISE.randint(1, 255) for _ in range(size))


def _block(secret: bytes, first: bytes = b"\x00\x02", zero: bytes = b"\x00") -> bytes:
    return first + _padding(SIZE - len(first) - len(zero) - len(secret)) + zero + secret


# What a good client encrypts is `right`; it too fails here, as the client makes its keys of another secret. So all of
# these have to look the same from outside (Bleichenbacher; ROBOT, CVE-2017-13099).
BLOCKS = {
    "right, of another secret": _block(VERSION + SECRET),
    "first byte wrong": _block(VERSION + SECRET, b"\x01\x02"),
    "block type 1": _block(VERSION + SECRET, b"\x00\x01"),
    "block type wrong": _block(VERSION + SECRET, b"\x00\x17"),
    "no zero before the secret": _block(VERSION + SECRET.replace(b"\x00", b"\x01"), zero=b"\x01"),
    "no zero anywhere": b"\x00\x02" + _padding(SIZE - 2),
    "zero in the padding's first 8 bytes": b"\x00\x02"
    + _padding(3)
    + b"\x00"
    + _padding(SIZE - 55)
    + b"\x00"
    + VERSION
    + SECRET,
    "zero in the padding": b"\x00\x02" + _padding(100) + b"\x00" + _padding(SIZE - 152) + b"\x00" + VERSION + SECRET,
    "secret of 0 bytes": _block(b""),
    "secret of 2 bytes": _block(VERSION),
    "secret of 47 bytes": _block(VERSION + SECRET[:-1]),
    "secret of 49 bytes": _block(VERSION + SECRET + b"\x07"),
    "version of SSL 3.0": _block(b"\x03\x00" + SECRET),
    "version of TLS 1.1": _block(b"\x03\x02" + SECRET),
    "version of TLS 1.3": _block(b"\x03\x04" + SECRET),
    "all zeros": bytes(SIZE),
    "one": bytes(SIZE - 1) + b"\x01",
}


def _exchange(change: Callable[[Any, bytes], bytes]) -> Run:
    """A ClientKeyExchange with what `change` makes of the server's key and the right ciphertext."""

    def hook(client: Client, sent: ClientKeyExchange) -> None:
        ciphertext = change(client.server_key, bytes(sent.encryptedPreMasterSecret))
        client.handshake(message(16, vector(ciphertext)))

    return lambda target: talk(target, "1.2", {"client_key_exchange": hook}, port=target.rsakx)


def _encrypted(block: bytes) -> Run:
    def change(key: Any, _right: bytes) -> bytes:
        return bytes(numberToByteArray(pow(bytesToNumber(bytearray(block)), key.e, key.n), SIZE))

    return _exchange(change)


CHECKS = checks(
    "RSA key exchange",
    ("right", "RFC 5246 7.4.7.1", "TLS 1.2", lambda target: talk(target, "1.2", port=target.rsakx)),
    *((name, "RFC 5246 7.4.7.1", ALIKE, _encrypted(block)) for name, block in BLOCKS.items()),
    (
        "number of the modulus itself",
        "RFC 5246 7.4.7.1",
        REFUSED,
        _exchange(lambda key, _right: bytes(numberToByteArray(key.n, SIZE))),
    ),
    ("number above the modulus", "RFC 5246 7.4.7.1", REFUSED, _exchange(lambda _key, _right: b"\xff" * SIZE)),
    ("ciphertext of 255 bytes", "RFC 5246 7.4.7.1", REFUSED, _exchange(lambda _key, right: right[:-1])),
    ("ciphertext of 257 bytes", "RFC 5246 7.4.7.1", REFUSED, _exchange(lambda _key, right: b"\x00" + right)),
    ("ciphertext of 0 bytes", "RFC 5246 7.4.7.1", REFUSED, _exchange(lambda _key, _right: b"")),
)
