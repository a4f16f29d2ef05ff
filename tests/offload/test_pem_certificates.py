"""Certificates read natively from PEM files: the same as `cryptography` reads, and nothing of a key."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offload._dataplane import read_certificates
from tests.offload.key_files import Authority, key_pem, pem, shared_key

_AUTHORITIES = [Authority.make(f"CA {n}") for n in range(3)]
_CERTIFICATES = [a.certificate for a in _AUTHORITIES]
_KEY = key_pem(shared_key("p256"))


def block(label: str, body: bytes, width: int = 64, end: str = "\n") -> bytes:
    text = base64.b64encode(body).decode()
    lines = [text[i : i + width] for i in range(0, len(text), width)]
    return (end.join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----"]) + end).encode()


def read(tmp_path: Path, content: bytes) -> tuple[list[bytes], int]:
    path = tmp_path / "file.pem"
    path.write_bytes(content)
    certificates, keys = read_certificates(str(path))
    return list(certificates), keys


def refused(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(ValueError, match=r"file\.pem") as caught:
        read(tmp_path, content)
    return str(caught.value)


def test_as_cryptography_reads_it(tmp_path: Path) -> None:
    content = pem(*_CERTIFICATES)
    expected = [c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(content)]
    assert read(tmp_path, content) == (expected, 0)


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
@pytest.mark.parametrize("width", [64, 76, 4, 100_000])
def test_line_ends_and_widths(tmp_path: Path, end: str, width: int) -> None:
    der = _CERTIFICATES[0].public_bytes(Encoding.DER)
    assert read(tmp_path, block("CERTIFICATE", der, width, end)) == ([der], 0)
    assert read(tmp_path, block("X509 CERTIFICATE", der, width, end).rstrip()) == ([der], 0)


def test_keys_are_counted_and_other_blocks_passed_over(tmp_path: Path) -> None:
    der = _CERTIFICATES[0].public_bytes(Encoding.DER)
    labels = ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"]
    content = b"subject=CN = www\n" + _KEY + block("EC PARAMETERS", b"x") + block("CERTIFICATE", der)
    content += b"".join(block(label, b"not decoded, not even !! base64") for label in labels)
    content += b"-----BEGIN DH PARAMETERS-----\n!!!\n-----END DH PARAMETERS-----\n trailing text"
    assert read(tmp_path, content) == ([der], 5)


def test_nothing_in_it(tmp_path: Path) -> None:
    for content in (b"", b"\n\n", b"text", b"-----BEGIN", b"----- BEGIN CERTIFICATE-----\n", b"\x00" * 100):
        assert read(tmp_path, content) == ([], 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "a PEM block has no END line: the file is truncated"),
        (_KEY[:-10], "a PEM block has no END line: the file is truncated"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "a PEM block ends with another label than it began with",
        ),
        (b"-----BEGIN A-----\n-----BEGIN B-----\n-----END B-----\n", "a PEM block begins inside another one"),
        (block("CERTIFICATE", b"x") + block("CERTIFICATE", b"x").replace(b"=", b"!"), "certificate 2 is not valid"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "certificate 1 is not valid base64"),
        (b"-----BEGIN CERTIFICATE-----\nA\0AA\n-----END CERTIFICATE-----", "certificate 1 is not valid base64"),
        (block("L" * 65, b""), "a PEM label is longer than 64 characters"),
        (block("CERTIFICATE", b"x") * 513, "more than 512 certificates"),
        (b"\n" * (1024 * 1024 + 1), "larger than 1048576 bytes"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in refused(tmp_path, content)


def test_refused_places(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        read_certificates(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="not a regular file"):
        read_certificates(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="not a regular file"):
        read_certificates(str(tmp_path / "fifo"))
    with pytest.raises(ValueError, match="null byte"):
        read_certificates("/etc\0/passwd")


def test_as_many_as_allowed(tmp_path: Path) -> None:
    certificates, keys = read(tmp_path, block("CERTIFICATE", b"x" * 500) * 512)
    assert (len(certificates), set(certificates), keys) == (512, {b"x" * 500}, 0)


_pieces = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"-----BEGIN CERTIFICATE-----\n",
            b"-----END CERTIFICATE-----\n",
            b"-----BEGIN PRIVATE KEY-----\n",
            b"-----END PRIVATE KEY-----",
            b"-----BEGIN ",
            b"-----",
            b"\r\n",
            b"QUJD\n",
            block("CERTIFICATE", b"abc"),
            _KEY,
        ]
    ),
)


@pytest.mark.slow(seconds=2)
@given(st.lists(_pieces, max_size=12))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_is_read_or_refused(tmp_path: Path, pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    try:
        certificates, keys = read(tmp_path, content)
    except ValueError as error:
        told = str(error)
        assert told.isprintable()
        assert len(told) < 500
    else:
        assert len(certificates) + keys <= content.count(b"-----BEGIN ")
        assert sum(map(len, certificates)) <= len(content)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.integers(min_value=1, max_value=99))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_encoded_comes_back(tmp_path: Path, ders: list[bytes], width: int) -> None:
    assert read(tmp_path, b"".join(block("CERTIFICATE", der, width) for der in ders)) == (ders, 0)
