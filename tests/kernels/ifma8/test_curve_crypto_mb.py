"""Intel's crypto_mb as a second oracle, where it is installed: same key, nonce and message, same signature."""

from __future__ import annotations

import ctypes
import random

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from .conftest import curves

pytestmark = pytest.mark.ifma
NAMED = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}
ROUNDS = 20


@pytest.fixture(scope="module")
def crypto_mb():
    from benchmarks.crypto_mb import library

    try:
        return library()
    except OSError as error:
        pytest.skip(f"crypto_mb is not installed (pip install .[bench]): {error}")


def pointers(values: list[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * 8)(*values)


@pytest.mark.parametrize("curve", ["p256", "p384"])
def test_ecdsa(curve, crypto_mb, faulty, load_in_hooks):
    n, size, rng = curves.CURVES[curve].n, curves.CURVES[curve].p.bit_length() // 8, random.Random(21)
    intel = getattr(crypto_mb, f"mbx_nist{curve}_ecdsa_sign_mb8")
    secrets = [rng.randrange(1, n) for _ in range(8)]
    keys = [load_in_hooks(ec.derive_private_key(d, NAMED[curve])) for d in secrets]
    for _ in range(ROUNDS):
        digests = [rng.randbytes(size) for _ in range(8)]
        nonces = [rng.randrange(1, n) for _ in range(8)]
        theirs = np.zeros((2, 8, size), np.uint8)
        to = [(ctypes.c_void_p * 8)(*(half.ctypes.data + lane * size for lane in range(8))) for half in theirs]
        words = [pointers([x.to_bytes(size, "little") for x in numbers]) for numbers in (nonces, secrets)]
        assert intel(*to, pointers(digests), *words, None) == 0
        faulty.known_nonces(np.frombuffer(b"".join(k.to_bytes(size) for k in nonces), np.uint8).reshape(8, size))
        ours = faulty.ecdsa_sign(keys, np.frombuffer(b"".join(digests), np.uint8).reshape(8, size), "ifma8")
        faulty.known_nonces(None)
        assert not ours.redone.any()
        assert (ours.outputs == np.concatenate([theirs[0], theirs[1]], axis=1)).all()


def test_ed25519(crypto_mb, hooks, load_in_hooks):
    rng = random.Random(22)
    seeds = [rng.randbytes(32) for _ in range(8)]
    privates = [ed25519.Ed25519PrivateKey.from_private_bytes(seed) for seed in seeds]
    publics = [private.public_key().public_bytes_raw() for private in privates]
    keys = [load_in_hooks(private) for private in privates]
    for _ in range(ROUNDS):
        messages = [rng.randbytes(rng.randrange(1, 400)) for _ in range(8)]
        theirs = np.zeros((2, 8, 32), np.uint8)
        to = [(ctypes.c_void_p * 8)(*(half.ctypes.data + lane * 32 for lane in range(8))) for half in theirs]
        lengths = (ctypes.c_int * 8)(*map(len, messages))
        assert crypto_mb.mbx_ed25519_sign_mb8(*to, pointers(messages), lengths, pointers(seeds), pointers(publics)) == 0
        ours = hooks.ed25519_sign(keys, messages, "ifma8")
        assert not ours.redone.any()
        assert (ours.outputs == np.concatenate([theirs[0], theirs[1]], axis=1)).all()
