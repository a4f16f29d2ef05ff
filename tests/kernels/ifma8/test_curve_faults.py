"""One bit flipped at every place of the curve kernels, in every lane: the wrong value never leaves, software redoes the
lane, the counter moves, and the other lanes stay as they are."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kernels import Status

from .conftest import curves

DIGESTS = {32: hashes.SHA256(), 48: hashes.SHA384()}
SIZES = {"p256": 32, "p384": 48}
BACKENDS = pytest.mark.parametrize("backend", [pytest.param("ifma8", marks=pytest.mark.ifma), "ifma8-portable"])
# Bits of the point run over X, Y, ZZ, ZZZ (52 bits per limb, 5 or 8 limbs each); of the inverses over 1/ZZ, then 1/k
# from 512 on.
ECDSA_BITS = {
    "ecdsa_r": [0, 51, 52, 200, 255],
    "ecdsa_s": [0, 51, 52, 200, 255],
    "ecdsa_point": [0, 100, 207, 260, 416, 500, 520, 780, 850, 1000, 1250],
    "ecdsa_inverse": [0, 60, 200, 512, 571, 700],
    "comb_digit": [0, 5, 6, 7, 52, 130, 250],
}
ED25519_BITS = {
    "ed25519_r": [0, 7, 100, 254, 255],
    "ed25519_s": [0, 100, 252, 255],
    "ed25519_nonce": [0, 1, 51, 52, 200, 251],
    "comb_digit": [0, 5, 6, 7, 52, 130, 250],
}


@pytest.fixture
def keys_of(hooks):
    cache = {}

    def keys(algorithm):
        if algorithm not in cache:
            cache[algorithm] = [hooks.Key.generate(algorithm) for _ in range(8)]
        return cache[algorithm]

    return keys


def verify(key, digest, output):
    half = len(output) // 2
    r, s = int.from_bytes(output[:half].tobytes()), int.from_bytes(output[half:].tobytes())
    public = load_der_public_key(key.public_key_der)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(DIGESTS[len(digest)])))


def strike(hooks, algorithm, place, bit, lane, sign):
    """Runs `sign` with the fault armed; checks that it struck, and that exactly its lane was redone and counted."""
    before = hooks.faults(algorithm)
    hooks.inject_fault(algorithm, lane, place, bit)
    outcome = sign()
    assert hooks.clear_faults() == 0, "nobody passed the place"
    assert outcome.status.tolist() == [Status.OK] * 8
    assert np.flatnonzero(outcome.redone).tolist() == [lane]
    assert hooks.faults(algorithm) == before + 1
    return outcome


@BACKENDS
@pytest.mark.parametrize("place", ECDSA_BITS)
@pytest.mark.parametrize("algorithm", SIZES)
def test_ecdsa_fault_in_every_lane(algorithm, place, backend, faulty, keys_of):
    size, keys = SIZES[algorithm], keys_of(algorithm)
    digests = [hashlib.sha512(bytes([lane])).digest()[:size] for lane in range(8)]
    rows = np.frombuffer(b"".join(digests), np.uint8).reshape(8, size)
    for bit in ECDSA_BITS[place]:
        for lane in range(8) if bit == ECDSA_BITS[place][0] else (bit % 8,):
            outcome = strike(faulty, algorithm, place, bit, lane, lambda: faulty.ecdsa_sign(keys, rows, backend))
            for key, digest, output in zip(keys, digests, outcome.outputs, strict=True):
                verify(key, digest, output)


@BACKENDS
@pytest.mark.parametrize("place", ED25519_BITS)
def test_ed25519_fault_in_every_lane(place, backend, faulty, keys_of):
    keys = keys_of("ed25519")
    messages = [bytes(lane) for lane in range(8)]
    wanted = faulty.ed25519_sign(keys, messages, "software").outputs
    for bit in ED25519_BITS[place]:
        for lane in range(8) if bit == ED25519_BITS[place][0] else (bit % 8,):
            outcome = strike(faulty, "ed25519", place, bit, lane, lambda: faulty.ed25519_sign(keys, messages, backend))
            assert (outcome.outputs == wanted).all()


@BACKENDS
@pytest.mark.parametrize(("algorithm", "place"), [("p256", "ecdsa_s"), ("p384", "ecdsa_r"), ("ed25519", "ed25519_s")])
def test_nothing_leaves_when_software_fails_as_well(algorithm, place, backend, faulty, keys_of):
    keys = keys_of(algorithm)
    faulty.inject_fault(algorithm, 5, place, 3)
    faulty.inject_fault(algorithm, 0, "software", 0)
    outputs = np.full((8, 96 if algorithm == "p384" else 64), 0xA5, np.uint8)
    if algorithm == "ed25519":
        outcome = faulty.ed25519_sign(keys, [b"message"] * 8, backend, outputs)
    else:
        outcome = faulty.ecdsa_sign(keys, np.ones((8, SIZES[algorithm]), np.uint8), backend, outputs)
    assert faulty.clear_faults() == 0
    assert outcome.status.tolist() == [Status.OK] * 5 + [Status.FAULT] + [Status.OK] * 2
    assert not outcome.redone.any()
    assert (outputs[5] == 0xA5).all()


@BACKENDS
@pytest.mark.parametrize("algorithm", SIZES)
def test_the_exceptional_nonce_is_redone_in_software(algorithm, backend, faulty, keys_of):
    """The one nonce for which the addition formula fails (weierstrass_ifma8_comb.h), and its negative."""
    curve, size = curves.CURVES[algorithm], SIZES[algorithm]
    top = 7 * (curve.windows - 1)
    exceptional = 2 * ((1 << curve.n.bit_length() - top) - 1 << top) - curve.n
    digests = np.ones((8, size), np.uint8)
    for nonce in (exceptional, curve.n - exceptional):
        nonces = np.frombuffer(b"".join(x.to_bytes(size) for x in [3, nonce, *range(5, 11)]), np.uint8)
        faulty.known_nonces(nonces.reshape(8, size))
        outcome = faulty.ecdsa_sign(keys_of(algorithm), digests, backend)
        faulty.known_nonces(None)
        assert outcome.redone.tolist() == [False, True] + [False] * 6
        for key, output in zip(keys_of(algorithm), outcome.outputs, strict=True):
            verify(key, bytes([1]) * size, output)


@BACKENDS
@pytest.mark.parametrize("algorithm", ["p256", "p384", "ed25519"])
@pytest.mark.parametrize("poison", [0x00, 0xA5, 0xFF])
def test_unused_lanes_and_old_scratch_memory_do_not_matter(algorithm, poison, backend, hooks, keys_of):
    for count in range(1, 9):
        keys = keys_of(algorithm)[:count]
        messages = [bytes([lane + 1]) * SIZES.get(algorithm, 70) for lane in range(count)]
        outcome = hooks.run_poisoned(keys, messages, backend, poison)
        assert outcome.status.tolist() == [Status.OK] * count
        for key, message, output in zip(keys, messages, outcome.outputs, strict=True):
            if algorithm == "ed25519":
                public = load_der_public_key(key.public_key_der)
                assert isinstance(public, ed25519.Ed25519PublicKey)
                public.verify(output[:64].tobytes(), message)
            else:
                verify(key, message, output[: 2 * SIZES[algorithm]])
