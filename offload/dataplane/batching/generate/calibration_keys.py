"""Writes calibration_keys.c: one RSA key per size, for measuring kernels at start (calibrate.c).

Generating RSA keys at run time would take seconds; these are generated once per build, from a fixed seed, and protect
nothing. They never enter a keyring. Usage: calibration_keys.py OUTPUT.c
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

SIZES = (2048, 3072, 4096)
SEED = "calibration keys: not secret"
EXPONENT = 65537
SIEVE_BOUND = 20000
MILLER_RABIN_ROUNDS = 8  # for numbers that no adversary chose, one would do


def small_primes(bound: int) -> list[int]:
    sieve = bytearray([1]) * bound
    sieve[:2] = b"\0\0"
    for n in range(2, int(bound**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, bound, n)))
    return [n for n in range(bound) if sieve[n]]


def is_probable_prime(n: int, rng: random.Random) -> bool:
    d, twos = n - 1, 0
    while d % 2 == 0:
        d, twos = d // 2, twos + 1
    for _ in range(MILLER_RABIN_ROUNDS):
        x = pow(rng.randrange(2, n - 1), d, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def prime(bits: int, primes: list[int], rng: random.Random) -> int:
    """A prime with its two highest bits set, so that a product of two has exactly twice the bits."""
    while True:
        candidate = rng.getrandbits(bits) | 3 << (bits - 2) | 1
        if any(candidate % p == 0 for p in primes) or candidate % EXPONENT == 1:
            continue
        if is_probable_prime(candidate, rng):
            return candidate


def der_length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


def der_integer(value: int) -> bytes:
    octets = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return b"\x02" + der_length(len(octets)) + octets


def rsa_private_key(bits: int, primes: list[int], rng: random.Random) -> bytes:
    """A PKCS#1 RSAPrivateKey (RFC 8017, A.1.2)."""
    p, q = sorted((prime(bits // 2, primes, rng) for _ in range(2)), reverse=True)
    d = pow(EXPONENT, -1, (p - 1) * (q - 1))
    numbers = (0, p * q, EXPONENT, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    body = b"".join(der_integer(n) for n in numbers)
    return b"\x30" + der_length(len(body)) + body


def c_array(name: str, data: bytes) -> str:
    lines = ["  " + " ".join(f"0x{b:02x}," for b in data[i : i + 16]) for i in range(0, len(data), 16)]
    return f"const uint8_t {name}[{len(data)}] = {{\n" + "\n".join(lines) + "\n};\n"


def main() -> None:
    rng = random.Random(SEED)  # noqa: S311  (the same keys in every build, on purpose)
    primes = small_primes(SIEVE_BOUND)
    parts = [
        "/* Made by batching/generate/calibration_keys.py; do not edit. These keys protect nothing. */",
        '#include "offload/dataplane/batching/calibrate.h"\n',
    ]
    for bits in SIZES:
        key = rsa_private_key(bits, primes, rng)
        parts.append(c_array(f"calibration_rsa{bits}", key))
        parts.append(f"const size_t calibration_rsa{bits}_size = sizeof calibration_rsa{bits};\n")
    Path(sys.argv[1]).write_text("\n".join(parts))


if __name__ == "__main__":
    main()
