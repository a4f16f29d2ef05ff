"""What a key may sign (usage.c) and who may use it (authorize.c), as pure functions."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_bool, c_char_p, c_size_t, c_uint16, c_uint32
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.offload.dataplane.serving import CLIENT_CONTEXT, ECDSA_P256, ECDSA_P384, SERVER_CONTEXT, SPACES

TLS13, TLS12_AND_13, ANY = range(3)
RSA2048, _, _, P256, P384, _ = range(6)
PKCS1, PSS = 0x0401, 0x0804
RANDOMS = bytes(range(64))


def allows(
    native: ctypes.CDLL,
    usage: int,
    data: bytes,
    scheme: int = PSS,
    algorithm: int = RSA2048,
    *,
    prehashed: bool = False,
) -> bool:
    native.usage_allows.restype = c_bool
    return bool(native.usage_allows(usage, c_uint16(scheme), algorithm, prehashed, data, c_size_t(len(data))))


def handshake(kind: int, body: bytes = b"") -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


TRANSCRIPT = b"".join(handshake(kind, b"x" * kind) for kind in (1, 2, 11, 22, 12, 13, 14, 11, 16))


@pytest.mark.parametrize("context", [SERVER_CONTEXT, CLIENT_CONTEXT])
@pytest.mark.parametrize("size", [32, 48])
def test_certificate_verify_is_allowed(native: ctypes.CDLL, context: bytes, size: int) -> None:
    for usage in (TLS13, TLS12_AND_13, ANY):
        assert allows(native, usage, SPACES + context + bytes(size))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(SPACES[1:] + SERVER_CONTEXT + bytes(32), id="63 spaces"),
        pytest.param(b" " + SPACES + SERVER_CONTEXT + bytes(32), id="65 spaces"),
        pytest.param(SPACES + SERVER_CONTEXT + bytes(31), id="short hash"),
        pytest.param(SPACES + SERVER_CONTEXT + bytes(33), id="long hash"),
        pytest.param(SPACES + SERVER_CONTEXT + bytes(64), id="SHA-512: no TLS 1.3 suite has it"),
        pytest.param(SPACES + SERVER_CONTEXT[:-1] + b"1" + bytes(32), id="no zero byte"),
        pytest.param(SPACES + b"TLS 1.3, Server CertificateVerify\0" + bytes(32), id="case"),
        pytest.param(SPACES + b"TLS 1.2, server CertificateVerify\0" + bytes(32), id="version"),
        pytest.param(b"-" + SPACES[1:] + SERVER_CONTEXT + bytes(32), id="first byte"),
        pytest.param(SPACES[1:] + b"\0" + SERVER_CONTEXT + bytes(32), id="last space"),
        pytest.param(TRANSCRIPT, id="TLS 1.2 transcript"),
        pytest.param(RANDOMS + b"\x03\x00\x1d\x20" + bytes(32), id="TLS 1.2 ServerKeyExchange"),
    ],
)
def test_tls13_allows_nothing_else(native: ctypes.CDLL, data: bytes) -> None:
    assert not allows(native, TLS13, data)
    assert allows(native, ANY, data)


@given(st.binary(max_size=300))
def test_tls13_refuses_arbitrary_bytes(native: ctypes.CDLL, data: bytes) -> None:
    assert not allows(native, TLS13, data)


@given(position=st.integers(0, 97), flip=st.integers(1, 255))
def test_every_byte_before_the_hash_counts(native: ctypes.CDLL, position: int, flip: int) -> None:
    data = bytearray(SPACES + SERVER_CONTEXT + bytes(32))
    data[position] ^= flip
    assert not allows(native, TLS13, bytes(data))
    assert not allows(native, TLS12_AND_13, bytes(data))


def test_tls13_form_is_not_signed_with_what_tls13_does_not_use(native: ctypes.CDLL) -> None:
    data = SPACES + SERVER_CONTEXT + bytes(32)
    for usage in (TLS13, TLS12_AND_13):
        assert not allows(native, usage, data, PKCS1)
        assert not allows(native, usage, data, ECDSA_P384, P256)
        assert allows(native, usage, data, ECDSA_P256, P256)


def test_digests_need_usage_any(native: ctypes.CDLL) -> None:
    data = SPACES + SERVER_CONTEXT + bytes(32)
    assert not allows(native, TLS13, data, prehashed=True)
    assert not allows(native, TLS12_AND_13, data, prehashed=True)
    assert allows(native, ANY, bytes(32), prehashed=True)


POINTS = [
    pytest.param(23, b"\x04" + bytes(64), id="secp256r1"),
    pytest.param(24, b"\x04" + bytes(96), id="secp384r1"),
    pytest.param(25, b"\x04" + bytes(132), id="secp521r1"),
    pytest.param(29, bytes(32), id="x25519"),
    pytest.param(30, bytes(56), id="x448"),
]


@pytest.mark.parametrize(("curve", "point"), POINTS)
def test_server_key_exchange(native: ctypes.CDLL, curve: int, point: bytes) -> None:
    data = RANDOMS + b"\x03" + curve.to_bytes(2, "big") + bytes([len(point)]) + point
    assert allows(native, TLS12_AND_13, data, PKCS1)
    assert allows(native, TLS12_AND_13, data, ECDSA_P384, P256)  # TLS 1.2: only the hash counts
    assert not allows(native, TLS12_AND_13, data + b"x")
    assert not allows(native, TLS12_AND_13, data[:-1])
    assert not allows(native, TLS12_AND_13, data[:64] + b"\x01" + data[65:])
    if curve < 29:
        assert not allows(native, TLS12_AND_13, data[:68] + b"\x02" + data[69:])


def test_client_transcript(native: ctypes.CDLL) -> None:
    assert allows(native, TLS12_AND_13, TRANSCRIPT, PKCS1)
    assert not allows(native, TLS12_AND_13, TRANSCRIPT[:-1])
    assert not allows(native, TLS12_AND_13, TRANSCRIPT + b"\0")
    assert not allows(native, TLS12_AND_13, TRANSCRIPT + handshake(15))
    assert not allows(native, TLS12_AND_13, handshake(1))
    assert not allows(native, TLS12_AND_13, handshake(2) + handshake(1) + handshake(16))
    assert not allows(native, TLS12_AND_13, handshake(1) + handshake(2) + handshake(8) + handshake(16))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"eyJhbGciOiJFUzI1NiJ9." * 7, id="JWT"),
        pytest.param(b"\x30\x82\x01\x00" + bytes(256), id="certificate request"),
        pytest.param(b"\x30\x81\x90" + bytes(144), id="short DER"),
        pytest.param(bytes(32), id="digest"),
    ],
)
def test_tls12_refuses_what_is_not_tls(native: ctypes.CDLL, data: bytes) -> None:
    assert not allows(native, TLS12_AND_13, data)


# --- selectors --------------------------------------------------------------------------------------------------------


class Caller(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_int),
        ("uid", c_uint32),
        ("gid", c_uint32),
        ("groups", ctypes.POINTER(c_uint32)),
        ("group_count", c_size_t),
        ("executable", c_char_p),
        ("cgroups", c_char_p),
        ("listener", c_char_p),
    )


class Selector(ctypes.Structure):
    _fields_ = (
        ("has_uid", c_bool),
        ("has_gid", c_bool),
        ("uid", c_uint32),
        ("gid", c_uint32),
        ("executable", c_char_p),
        ("cgroup", c_char_p),
        ("socket", c_char_p),
    )


def caller() -> Caller:
    groups = (c_uint32 * 2)(20, 30)
    cgroups = b"1:cpu:/other\n0::/kubepods/pod1/envoy\n"
    return Caller(7, 1000, 100, groups, 2, b"/usr/bin/envoy", cgroups, b"main")


def matches(native: ctypes.CDLL, who: Caller | None = None, **fields: object) -> bool:
    selector = Selector(**fields)
    native.authorize_matches.restype = c_bool
    return bool(native.authorize_matches(byref(selector), byref(who or caller())))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"has_uid": True, "uid": 1000}, True),
        ({"has_uid": True, "uid": 0}, False),
        ({"has_gid": True, "gid": 100}, True),
        ({"has_gid": True, "gid": 30}, True),
        ({"has_gid": True, "gid": 0}, False),
        ({"executable": b"/usr/bin/envoy"}, True),
        ({"executable": b"/usr/bin/env"}, False),
        ({"executable": b"/usr/bin/envoy2"}, False),
        ({"cgroup": b"/kubepods"}, True),
        ({"cgroup": b"/kubepods/"}, True),
        ({"cgroup": b"/kubepods/pod1/envoy"}, True),
        ({"cgroup": b"/kubepods/pod"}, False),
        ({"cgroup": b"/kubepods/pod1/envoy/sub"}, False),
        ({"cgroup": b"/"}, True),
        ({"cgroup": b"kubepods"}, False),
        ({"cgroup": b"/other"}, True),
        ({"socket": b"main"}, True),
        ({"socket": b"mai"}, False),
        ({"has_uid": True, "uid": 1000, "socket": b"other"}, False),
        ({"has_uid": True, "uid": 1000, "executable": b"/usr/bin/envoy", "socket": b"main"}, True),
    ],
)
def test_selectors(native: ctypes.CDLL, fields: dict[str, Any], expected: bool) -> None:
    assert matches(native, **fields) is expected


def test_what_could_not_be_read_matches_nothing(native: ctypes.CDLL) -> None:
    unknown = caller()
    unknown.executable = unknown.cgroups = None
    assert not matches(native, unknown, executable=b"/usr/bin/envoy")
    assert not matches(native, unknown, cgroup=b"/")


# --- header values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"1n", 1),
        (b"20u", 20_000),
        (b"3m", 3_000_000),
        (b"4S", 4 * 10**9),
        (b"5M", 300 * 10**9),
        (b"1H", 3600 * 10**9),
        (b"99999999H", 2**64 - 2),
        (b"0n", 0),
        (b"", None),
        (b"1", None),
        (b"S", None),
        (b"123456789S", None),
        (b"1s", None),
        (b"-1S", None),
        (b"1 S", None),
    ],
)
def test_grpc_timeout(native: ctypes.CDLL, text: bytes, ns: int | None) -> None:
    native.header_timeout_ns.restype = ctypes.c_uint64
    assert native.header_timeout_ns(text, c_size_t(len(text))) == (2**64 - 1 if ns is None else ns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc+json", False),
        (b"application/grpcx", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_content_type(native: ctypes.CDLL, text: bytes, expected: bool) -> None:
    native.header_is_grpc_content.restype = c_bool
    assert native.header_is_grpc_content(text, c_size_t(len(text))) is expected


def test_percent_encoding(native: ctypes.CDLL) -> None:
    native.header_percent_encode.restype = c_size_t
    room = ctypes.create_string_buffer(100)
    size = native.header_percent_encode("50% of gr\u00fcn\n".encode(), room, c_size_t(100))
    assert room.raw[:size] == b"50%25 of gr%C3%BCn%0A"
    assert native.header_percent_encode(b"ab%", room, c_size_t(4)) == 2
