"""X25519 on IFMA against RFC 7748 and against OpenSSL (through `cryptography`), with the bounds on limbs asserted."""

from __future__ import annotations

import ctypes
import os
import random

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from .conftest import ROOT, Build

# There is no portable build of the ladder: where there is no IFMA, the module uses BoringSSL's.
pytestmark = [pytest.mark.ifma, pytest.mark.parametrize("build", ["native"], indirect=True)]

LANES = 8
P = 2**255 - 19
KERNELS = ROOT / "kernels" / "ifma8"
# RFC 7748, 5.2: scalar, u, result.
VECTORS = [
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
]
# Points of low order (and what is the same mod p, or with the bit that does not count).
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
    2**255,
]


class X25519:
    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.x25519_shared_ifma4.restype = ctypes.c_bool
        library.x25519_public_ifma8.restype = ctypes.c_uint8

    def shared(self, private: bytes, point: bytes) -> bytes | None:
        """None for a point of low order."""
        result = ctypes.create_string_buffer(32)
        done = self.library.x25519_shared_ifma4(result, private, point)
        assert done or result.raw == bytes(32)
        return result.raw if done else None

    def public(self, private: list[bytes]) -> list[bytes]:
        result = ctypes.create_string_buffer(32 * LANES)
        assert self.library.x25519_public_ifma8(result, b"".join(private)) == 0xFF
        return [result.raw[i : i + 32] for i in range(0, 32 * LANES, 32)]


@pytest.fixture(scope="module")
def x25519(build: Build) -> X25519:
    sources = [KERNELS / "x25519_ifma8_public.c", KERNELS / "x25519_ifma4_shared.c", build.folder / "ed25519_comb.c"]
    return X25519(ctypes.CDLL(str(build.compile(sources, "x25519.so", "-shared", "-fPIC"))))


def expected(private: bytes, point: bytes) -> bytes | None:
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(point))
    except ValueError:
        return None


def public_of(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


@pytest.mark.parametrize(("scalar", "u", "result"), VECTORS)
def test_vectors_of_the_rfc(x25519: X25519, scalar: str, u: str, result: str) -> None:
    assert x25519.shared(bytes.fromhex(scalar), bytes.fromhex(u)) == bytes.fromhex(result)


def test_a_thousand_in_a_row(x25519: X25519) -> None:
    """RFC 7748, 5.2: the result is the next scalar, the scalar the next point."""
    k = u = (9).to_bytes(32, "little")
    for _ in range(1000):
        result = x25519.shared(k, u)
        assert result is not None
        k, u = result, k
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_random_keys_and_points(x25519: X25519) -> None:
    for _ in range(500):
        private, point = os.urandom(32), os.urandom(32)
        assert x25519.shared(private, point) == expected(private, point)


def edge_numbers() -> list[int]:
    """Near 0, p, 2^255, and with limbs of 51 bits that are all zeros or all ones."""
    near = [around + d for around in (0, P, 2**255, 2**256) for d in range(-20, 21)]
    chosen = random.Random(1)
    near += [sum(chosen.choice((0, 1, 2**51 - 1)) << 51 * i for i in range(5)) for _ in range(200)]
    return [one for one in near if 0 <= one < 2**256]


def test_points_at_the_edges(x25519: X25519) -> None:
    for number in edge_numbers():
        private, point = os.urandom(32), number.to_bytes(32, "little")
        assert x25519.shared(private, point) == expected(private, point), number


@pytest.mark.parametrize("number", LOW_ORDER)
def test_points_of_low_order_are_refused(x25519: X25519, number: int) -> None:
    assert x25519.shared(os.urandom(32), number.to_bytes(32, "little")) is None


@pytest.mark.parametrize("private", [bytes(32), b"\xff" * 32, bytes([7] + [0] * 31), b"\x00" * 31 + b"\x80"])
def test_scalars_at_the_edges(x25519: X25519, private: bytes) -> None:
    point = public_of(os.urandom(32))
    assert x25519.shared(private, point) == expected(private, point)
    assert x25519.public([private] * LANES) == [public_of(private)] * LANES


def test_public_keys(x25519: X25519) -> None:
    for _ in range(100):
        private = [os.urandom(32) for _ in range(LANES)]
        assert x25519.public(private) == [public_of(one) for one in private]


def test_public_keys_of_scalars_near_multiples_of_the_order(x25519: X25519) -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    numbers = [(m * order + d) % 2**255 for m in range(4, 9) for d in range(-16, 17, 4)]
    private = [number.to_bytes(32, "little") for number in numbers]
    for start in range(0, len(private), LANES):
        eight = (private[start : start + LANES] * LANES)[:LANES]
        assert x25519.public(eight) == [public_of(one) for one in eight]
