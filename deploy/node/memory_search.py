"""Looks for a private key in the memory of a running process.

It looks for the secret numbers themselves, in every form a TLS library could hold them: big-endian (as in DER, and so
in any copy of the file), little-endian (the limbs of BoringSSL's BIGNUM and EC_SCALAR on x86), and the PEM text. One
finding proves that the key is there. All readable mappings are read whole, freed memory included.

If the key is not known, because it never was where we could see it, an RSA key can be found by its certificate alone:
`search_for_factors` finds what divides the modulus.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
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
    """The result of one search."""

    bytes_read: int
    mappings: int
    findings: tuple[Finding, ...]


def patterns(key: PrivateKey) -> dict[str, bytes]:
    """The byte strings that reveal the key, by name."""
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

    For RSA these are the last full ones (the CRT values), for EC the second (half of the scalar).
    """
    lines = pem_of(key).splitlines()[1:-1]
    chosen = range(len(lines) - 5, len(lines) - 1) if isinstance(key, rsa.RSAPrivateKey) else range(1, 2)
    return ((number, lines[number]) for number in chosen)


def search(pid: int, wanted: Mapping[str, bytes]) -> Search:
    """Reads all readable mappings of the process. PermissionError if it may not be read."""
    overlap = max(len(pattern) for pattern in wanted.values()) - 1
    return _search(
        pid, _readable_mappings(pid), overlap, lambda chunk, address, path: _find_in(chunk, address, path, wanted)
    )


def _search(
    pid: int,
    mappings: Sequence[tuple[int, int, str]],
    overlap: int,
    find: Callable[[bytes, int, str], Iterator[Finding]],
) -> Search:
    """`find` gets each chunk with its address and its mapping."""
    findings: list[Finding] = []
    total = 0
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        for start, end, path in mappings:
            for address, chunk in _chunks(memory, start, end, overlap):
                total += len(chunk)
                findings += find(chunk, address, path)
    finally:
        os.close(memory)
    return Search(total, len(mappings), tuple(findings))


def _readable_mappings(pid: int, writable_only: bool = False) -> Sequence[tuple[int, int, str]]:
    with open(f"/proc/{pid}/maps") as file:
        matches = [_MAPPING.match(line.rstrip("\n")) for line in file]
    # The kernel's own pages hold no memory of the process and cannot be read this way.
    return [
        (int(m[1], 16), int(m[2], 16), m[5])
        for m in matches
        if m and m[5] not in ("[vvar]", "[vsyscall]", "[vvar_vclock]") and (m[4][0] == "w" or not writable_only)
    ]


def _chunks(memory: int, start: int, end: int, overlap: int) -> Iterator[tuple[int, bytes]]:
    """The mapping in chunks that overlap, so that no pattern is cut in two.

    Pages that cannot be read (a device, the part beyond the end of a truncated file) end it.
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


# --- by the certificate alone -----------------------------------------------------------------------------------------

# Minimum of a prime's highest byte: the primes of an RSA modulus of full length are at least 2^(k/2) / sqrt(2).
_TOP = 0xB5
_LIMB = 8
# Maximum number of zero bytes in a factor; one in 10^13 of RSA-2048 has more. Structures and pointers have many more,
# and would cost a division each.
_ZEROS = 12


def search_for_factors(pid: int, moduli: Sequence[int]) -> Search:
    """Looks for a prime factor of one of the moduli, all of one size. PermissionError if it may not be read.

    Little-endian at the addresses that limbs have, and big-endian as in DER, after a zero byte. Only writable memory
    is read: a key that was created while the process ran is nowhere else.
    """
    size = (max(moduli).bit_length() + 15) // 16
    product = math.prod(moduli)
    mappings = _readable_mappings(pid, writable_only=True)
    return _search(pid, mappings, size, lambda chunk, address, path: _factors_in(chunk, address, path, product, size))


def _factors_in(chunk: bytes, address: int, path: str, product: int, size: int) -> Iterator[Finding]:
    data = np.frombuffer(chunk, np.uint8)
    count = len(data) - size + 1
    if count <= 0:
        return
    big = np.flatnonzero(data[:count] >= _TOP)
    big = big[(data[big - 1] == 0) & (data[big + size - 1] & 1 == 1)]
    little = np.arange(-address % _LIMB, count, _LIMB)
    little = little[(data[little + size - 1] >= _TOP) & (data[little] & 1 == 1)]
    for order, candidates in (("big", big), ("little", little)):
        for at in candidates.tolist():
            window = chunk[at : at + size]
            if window.count(0) <= _ZEROS and product % int.from_bytes(window, order) == 0:  # type: ignore[arg-type]
                yield Finding(f"RSA factor {order}-endian", address + at, path)
