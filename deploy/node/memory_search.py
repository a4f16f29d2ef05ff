"""Looks for a private key in the memory of a running process.

What is looked for are the secret numbers themselves, in every form a TLS library could hold them: big-endian (as in
DER, and so in any copy of the file), little-endian (the limbs of BoringSSL's BIGNUM and EC_SCALAR on x86), and the PEM
text. One finding is enough to say that the key is there. All readable mappings are read whole, freed memory included.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deploy.node.certificates import PrivateKey, pem_of

CHUNK = 8 * 1024 * 1024
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (r)(\S{3}) \S+ \S+ \S+ *(.*)")


@dataclass(frozen=True)
class Finding:
    pattern: str  # which secret, in which form
    address: int
    mapping: str  # path or [heap]; empty for anonymous memory


@dataclass(frozen=True)
class Search:
    """What one search did."""

    bytes_read: int
    mappings: int
    findings: tuple[Finding, ...]


def patterns(key: PrivateKey) -> dict[str, bytes]:
    """The byte strings that give the key away, by name."""
    found = {f"PEM line {number}": line for number, line in _secret_pem_lines(key)}
    for name, (value, size) in _secret_numbers(key).items():
        found[f"{name} big-endian"] = value.to_bytes(size, "big")
        found[f"{name} little-endian"] = value.to_bytes(size, "little")
    return found


def _secret_numbers(key: PrivateKey) -> dict[str, tuple[int, int]]:
    """Each secret number, and its natural size in bytes."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {"scalar": (key.private_numbers().private_value, (key.key_size + 7) // 8)}
    numbers = key.private_numbers()
    whole, half = key.key_size // 8, key.key_size // 16
    return {
        "d": (numbers.d, whole),
        "p": (numbers.p, half),
        "q": (numbers.q, half),
        "d mod p-1": (numbers.dmp1, half),
        "d mod q-1": (numbers.dmq1, half),
        "q^-1 mod p": (numbers.iqmp, half),
    }


def _secret_pem_lines(key: PrivateKey) -> Iterator[tuple[int, bytes]]:
    """Whole PEM lines that hold secret bytes; the first lines hold only public numbers.

    Of RSA the last full ones (the CRT values), of EC the second (half of the scalar).
    """
    lines = pem_of(key).splitlines()[1:-1]
    chosen = range(len(lines) - 5, len(lines) - 1) if isinstance(key, rsa.RSAPrivateKey) else range(1, 2)
    return ((number, lines[number]) for number in chosen)


def search(pid: int, wanted: Mapping[str, bytes]) -> Search:
    """Read all readable mappings of the process. PermissionError when it may not be read."""
    findings: list[Finding] = []
    total = mappings = 0
    overlap = max(len(pattern) for pattern in wanted.values()) - 1
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        for start, end, path in _readable_mappings(pid):
            mappings += 1
            for address, chunk in _chunks(memory, start, end, overlap):
                total += len(chunk)
                findings += _find_in(chunk, address, path, wanted)
    finally:
        os.close(memory)
    return Search(total, mappings, tuple(findings))


def _readable_mappings(pid: int) -> Sequence[tuple[int, int, str]]:
    with open(f"/proc/{pid}/maps") as file:
        matches = [_MAPPING.match(line.rstrip("\n")) for line in file]
    # The kernel's own pages hold no memory of the process and cannot be read this way.
    return [
        (int(m[1], 16), int(m[2], 16), m[5])
        for m in matches
        if m and m[5] not in ("[vvar]", "[vsyscall]", "[vvar_vclock]")
    ]


def _chunks(memory: int, start: int, end: int, overlap: int) -> Iterator[tuple[int, bytes]]:
    """The mapping in chunks that overlap, so that no pattern is cut in two.

    Pages that cannot be read (a device, what is behind the end of a truncated file) end it.
    """
    address = start
    while address < end:
        try:
            chunk = os.pread(memory, min(CHUNK, end - address), address)
        except OSError:
            chunk = b""
        if not chunk:
            return
        yield address, chunk
        if address + len(chunk) >= end:
            return
        address += max(len(chunk) - overlap, 1)


def _find_in(chunk: bytes, address: int, path: str, wanted: Mapping[str, bytes]) -> Iterator[Finding]:
    for name, pattern in wanted.items():
        at = chunk.find(pattern)
        if at >= 0:
            yield Finding(name, address + at, path)
