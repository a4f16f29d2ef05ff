"""Writes the constants of SHA-512 (FIPS 180-4, 4.2.3 and 5.3.5) as a C header: `python sha512.py OUTPUT`.

They are the first 64 bits of the fractional parts of the cube roots of the first 80 primes, and of the square roots of
the first eight.
"""

from __future__ import annotations

import sys
from itertools import count, islice
from math import isqrt
from pathlib import Path

PRIMES = list(islice((n for n in count(2) if all(n % d for d in range(2, isqrt(n) + 1))), 80))


def cube_root(x: int) -> int:
    """The largest integer whose cube is not above x."""
    low, high = 0, 1 << (x.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= x else (low, middle - 1)
    return low


def array(name: str, values: list[int]) -> str:
    """A C array of 64-bit words."""
    words = "".join(f"\n    0x{value % 2**64:016x}," for value in values)
    return f"static const uint64_t {name}[{len(values)}] = {{{words}\n}};\n"


def main() -> None:
    """Writes the header."""
    rounds = array("sha512_round_constants", [cube_root(prime << 192) for prime in PRIMES])
    start = array("sha512_start", [isqrt(prime << 128) for prime in PRIMES[:8]])
    text = f"/* Written by kernels/generate/sha512.py; do not edit. */\n#include <stdint.h>\n\n{rounds}\n{start}"
    Path(sys.argv[1]).write_text(text)


if __name__ == "__main__":
    main()
