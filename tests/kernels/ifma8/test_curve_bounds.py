"""Whole signatures with every bound asserted: random and extreme keys, nonces and digests, against the definition."""

from __future__ import annotations

import hashlib
import random
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from .conftest import CURVES, curves

NAMED = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}
WEIERSTRASS = pytest.mark.parametrize("curve", ["p256", "p384"])
OK, FAULT = "0", "3"


def run(program, lines: list[str]) -> list[list[str]]:
    """One answer per line; a broken bound ends the program with a message."""
    done = subprocess.run([program], input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    assert len(answers) == len(lines)
    return answers


def expected(curve: str, d: int, k: int, digest: int) -> tuple[int, int]:
    n = curves.CURVES[curve].n
    r = ec.derive_private_key(k, NAMED[curve]).public_key().public_numbers().x % n
    return r, pow(k, -1, n) * (digest + r * d) % n


def check(curve: str, program, cases: list[tuple[int, int, int]]) -> None:
    size = curves.CURVES[curve].p.bit_length() // 8
    lines = [" ".join(x.to_bytes(size).hex() for x in case) for case in cases]
    for i, (case, (status, r, s, wide)) in enumerate(zip(cases, run(program, lines), strict=True)):
        assert status == OK
        assert (int(r, 16), int(s, 16)) == expected(curve, *case)
        # kernels/ecdsa_nonce.h; the program's `fresh` is all zeros
        secret, digest = case[0].to_bytes(size), case[2].to_bytes(size)
        assert wide == hashlib.sha512(secret + bytes(32) + digest + bytes([i % 8])).hexdigest()


@pytest.mark.slow(seconds=6)
@pytest.mark.parametrize("curve", CURVES)
def test_a_broken_bound_ends_the_program(curve, sign_cases):
    """Otherwise the tests below say nothing about bounds."""
    done = subprocess.run([sign_cases(curve), "--break"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "outside its proved bounds" in done.stderr


@pytest.mark.slow(seconds=10)
@WEIERSTRASS
def test_random_signatures(curve, sign_cases):
    rng, n = random.Random(11), curves.CURVES[curve].n
    bits = n.bit_length()
    cases = [(rng.randrange(1, n), rng.randrange(1, n), rng.getrandbits(bits)) for _ in range(400)]
    check(curve, sign_cases(curve), cases)


@pytest.mark.slow(seconds=42)
@WEIERSTRASS
def test_extreme_signatures(curve, sign_cases):
    """Small, large and sparse numbers; partial batches at the end; digests of n and more."""
    rng, n = random.Random(12), curves.CURVES[curve].n
    bits = n.bit_length()
    scalars = [1, 2, 3, n - 1, n - 2, n - 3, n // 2, n // 2 + 1, (1 << bits - 1) - 1, 1 << bits - 2]
    scalars += [1 << e for e in range(4, bits - 1, 37)] + [n - (1 << e) for e in range(4, bits - 1, 41)]
    scalars += [(1 << bits) // 3 % n, (1 << bits - 1) // 3, (1 << 52) - 1, (1 << 104) - (1 << 52)]
    digests = [0, 1, n - 1, n, n + 1, (1 << bits) - 1]
    cases = [(rng.choice(scalars), k, digest) for k in scalars for digest in digests]
    check(curve, sign_cases(curve), cases[: len(cases) // 8 * 8 + 5])


@WEIERSTRASS
def test_no_signature_with_r_or_s_zero_or_of_the_exceptional_nonce(curve, sign_cases):
    """s = 0 where m = -r d; the exceptional k is explained in weierstrass_ifma8_comb.h. Neither gets out."""
    rng, c = random.Random(13), curves.CURVES[curve]
    n, size = c.n, c.p.bit_length() // 8
    top = 7 * (c.windows - 1)
    exceptional = 2 * ((1 << n.bit_length() - top) - 1 << top) - n
    cases = []
    for _ in range(8):
        d, k = rng.randrange(1, n), rng.randrange(1, n)
        r, _ = expected(curve, d, k, 0)
        cases.append((d, k, -r * d % n))
    cases += [(rng.randrange(1, n), k, rng.randrange(n)) for k in (exceptional, n - exceptional)]
    lines = [" ".join(x.to_bytes(size).hex() for x in case) for case in cases]
    answers = run(sign_cases(curve), lines)
    assert [status for status, *_ in answers] == [FAULT] * len(cases)
    assert all(int(r, 16) == int(s, 16) == 0 for _, r, s, _ in answers), "the output of a failed lane was touched"


@pytest.mark.slow(seconds=8)
@pytest.mark.parametrize("curve", ["ed25519"])
def test_ed25519_signatures(curve, sign_cases):
    rng = random.Random(14)
    seeds = [bytes(32), b"\xff" * 32] + [rng.randbytes(32) for _ in range(150)]
    lines, wanted = [], []
    for seed in seeds:
        private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        digest = bytearray(hashlib.sha512(seed).digest())
        digest[0] &= 248
        digest[31] = digest[31] & 127 | 64
        message = rng.randbytes(rng.randrange(0, 300))
        parts = (digest[:32], digest[32:], private.public_key().public_bytes_raw(), message)
        lines.append(" ".join(part.hex() or "-" for part in parts))
        wanted.append([OK, private.sign(message)[:32].hex(), private.sign(message)[32:].hex()])
    assert run(sign_cases(curve), lines) == wanted
