"""A wrong result never leaves: injected faults are noticed, redone in software, counted.

Faults need the testing hooks, so all of this runs on kernels._testing, which also has the vector kernels in portable C.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils

from kernels import Scheme, SignStatus, Status

from .conftest import ORDER_SIZES, RSA_SIZES, public_key, rows, rsa_numbers

VECTOR = pytest.mark.parametrize("backend", [pytest.param("ifma8", marks=pytest.mark.ifma), "ifma8-portable"])
RSA_PLACES = ["rsa_p", "rsa_q", "rsa_recombined"]
ECDSA_PLACES = ["ecdsa_r", "ecdsa_s", "ecdsa_point"]
ED25519_PLACES = ["ed25519_r", "ed25519_s"]
SCHEMES = {"p256": Scheme.ECDSA_P256_SHA256, "p384": Scheme.ECDSA_P384_SHA384, "ed25519": Scheme.ED25519}


@pytest.fixture(scope="module")
def keys(hooks):
    made = {}

    def of(algorithm):
        if algorithm not in made:
            made[algorithm] = [hooks.Key.generate(algorithm) for _ in range(2)] * 4
        return made[algorithm]

    return of


def inputs_of(algorithm):
    if algorithm == "ed25519":
        return [bytes([i]) * (10 * i) for i in range(8)]
    size = RSA_SIZES.get(algorithm) or ORDER_SIZES[algorithm]
    return [(b"\0" + hashlib.shake_256(bytes([i])).digest(size - 1)) for i in range(8)]


def run(hooks, algorithm, keys, inputs, backend):
    if algorithm == "ed25519":
        return hooks.ed25519_sign(keys, inputs, backend)
    operation = hooks.rsa_private if algorithm in RSA_SIZES else hooks.ecdsa_sign
    return operation(keys, rows(inputs), backend)


def is_right(algorithm, key, given, output) -> bool:
    public, raw = public_key(key), output.tobytes()
    if algorithm in RSA_SIZES:
        numbers = rsa_numbers(key)
        return pow(int.from_bytes(raw), numbers.e, numbers.n) == int.from_bytes(given)
    try:
        if algorithm == "ed25519":
            public.verify(raw, given)
        else:
            half = len(raw) // 2
            signature = utils.encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))
            from cryptography.hazmat.primitives import hashes

            digest = {32: hashes.SHA256(), 48: hashes.SHA384()}[half]
            public.verify(signature, given, ec.ECDSA(utils.Prehashed(digest)))
    except InvalidSignature:
        return False
    return True


def strike(hooks, algorithm, keys, backend, lane, place, bit):
    """One batch of 8 with one fault; checks everything that must hold whatever the fault was."""
    inputs = inputs_of(algorithm)
    before = hooks.faults(algorithm)
    hooks.inject_fault(algorithm, lane, place, bit)
    outcome = run(hooks, algorithm, keys, inputs, backend)
    assert hooks.clear_faults() == 0, f"nobody passed {place}"
    assert outcome.status.tolist() == [Status.OK] * 8
    for i in range(8):
        assert is_right(algorithm, keys[i], inputs[i], outcome.outputs[i]), f"lane {i} is wrong"
    assert hooks.faults(algorithm) - before == outcome.redone.sum()
    return outcome


CASES = [(a, p) for a in RSA_SIZES for p in RSA_PLACES]
CASES += [(a, p) for a in ORDER_SIZES for p in ECDSA_PLACES] + [("ed25519", p) for p in ED25519_PLACES]


@pytest.mark.slow(seconds=4)
@VECTOR
@pytest.mark.parametrize(("algorithm", "place"), CASES)
def test_every_lane_and_place(algorithm, place, backend, faulty, keys):
    if backend == "ifma8-portable" and algorithm in ("rsa3072", "rsa4096"):
        pytest.skip("slow in portable C; the same source is covered by rsa2048 there")
    bits = [0, 51, 52, 200] if algorithm != "rsa4096" else [0, 105]
    for lane in range(8):
        outcome = strike(faulty, algorithm, keys(algorithm), backend, lane, place, bits[lane % len(bits)])
        assert outcome.redone.tolist() == [i == lane for i in range(8)]


@VECTOR
@pytest.mark.parametrize("algorithm", ["rsa2048", "p256", "ed25519"])
def test_every_lane_at_once(algorithm, backend, faulty, keys):
    place = {"rsa2048": "rsa_q", "p256": "ecdsa_s", "ed25519": "ed25519_s"}[algorithm]
    inputs = inputs_of(algorithm)
    for lane in range(8):
        faulty.inject_fault(algorithm, lane, place, 7 * lane)
    outcome = run(faulty, algorithm, keys(algorithm), inputs, backend)
    assert outcome.redone.all()
    assert all(is_right(algorithm, k, i, o) for k, i, o in zip(keys(algorithm), inputs, outcome.outputs, strict=True))


@VECTOR
@pytest.mark.parametrize("algorithm", ["rsa2048", "rsa3072", "p256", "p384", "ed25519"])
def test_nothing_leaves_when_software_fails_too(algorithm, backend, faulty, keys):
    place = {"r": "rsa_p", "p": "ecdsa_s", "e": "ed25519_s"}[algorithm[0]]
    inputs = inputs_of(algorithm)
    size = run(faulty, algorithm, keys(algorithm), inputs, "software").outputs.shape[1]
    outputs = np.full((8, size), 0xA5, np.uint8)
    operation = {"r": faulty.rsa_private, "p": faulty.ecdsa_sign, "e": faulty.ed25519_sign}[algorithm[0]]
    faulty.inject_fault(algorithm, 3, place, 5)
    faulty.inject_fault(algorithm, faulty.ANY_LANE, "software", 0)
    outcome = operation(keys(algorithm), rows(inputs) if algorithm != "ed25519" else inputs, backend, outputs)
    assert outcome.status.tolist() == [Status.FAULT if i == 3 else Status.OK for i in range(8)]
    assert not outcome.redone.any()
    assert (outputs[3] == 0xA5).all()
    for i in (0, 1, 2, 4, 5, 6, 7):
        assert is_right(algorithm, keys(algorithm)[i], inputs[i], outputs[i])


@pytest.mark.parametrize("algorithm", ["rsa2048", "p256", "p384", "ed25519"])
def test_a_failing_software_lane_releases_nothing(algorithm, faulty, keys):
    inputs = inputs_of(algorithm)
    faulty.inject_fault(algorithm, 2, "software", 0)
    before = faulty.faults(algorithm)
    outcome = run(faulty, algorithm, keys(algorithm), inputs, "software")
    assert outcome.status.tolist() == [Status.FAULT if i == 2 else Status.OK for i in range(8)]
    assert not outcome.outputs[2].any()
    assert faulty.faults(algorithm) == before, "the counter is of vector results"


@VECTOR
def test_tls_signatures_and_decryptions_are_redone_too(backend, faulty, keys):
    for algorithm, scheme, place in [
        ("rsa2048", Scheme.RSA_PSS_SHA256, "rsa_p"),
        ("p256", Scheme.ECDSA_P256_SHA256, "ecdsa_r"),
        ("ed25519", Scheme.ED25519, "ed25519_r"),
    ]:
        faulty.inject_fault(algorithm, 1, place, 3)
        result = faulty.sign_messages(scheme, keys(algorithm)[:3], [b"a", b"b", b"c"], backend)
        assert result.redone.tolist() == [False, True, False]
        assert all(result.as_bytes())
    key = keys("rsa2048")[0]
    wanted = faulty.decrypt(key, [bytes(255) + b"\5"] * 2, "software").outputs
    faulty.inject_fault("rsa2048", 1, "rsa_q", 100)
    outcome = faulty.decrypt(key, [bytes(255) + b"\5"] * 2, backend)
    assert outcome.redone.tolist() == [False, True]
    assert (outcome.outputs == wanted).all()


def test_a_tls_signature_that_fails_everywhere_has_no_output(faulty, keys):
    for algorithm, scheme in [("rsa2048", Scheme.RSA_PSS_SHA256), *SCHEMES.items()]:
        faulty.inject_fault(algorithm, 0, "software", 0)
        result = faulty.sign_messages(scheme, keys(algorithm)[:2], [b"a", b"b"], "software")
        assert result.status.tolist() == [SignStatus.FAULT, SignStatus.OK]
        assert result.as_bytes()[0] is None
        assert not result.outputs[0].any()
        assert result.sizes[0] == 0


@VECTOR
@pytest.mark.parametrize("algorithm", [*RSA_SIZES, *ORDER_SIZES, "ed25519"])
@pytest.mark.parametrize("poison", [0x00, 0xFF, 0xA5])
def test_poisoned_lanes_and_workspace_do_not_matter(algorithm, poison, backend, hooks, keys):
    """What lies in the unused lanes (wild pointers too) and in the workspace changes nothing."""
    inputs = inputs_of(algorithm)
    for count in (1, 2, 3, 5, 7) if backend == "ifma8" else (1, 3):
        outcome = hooks.run_poisoned(keys(algorithm)[:count], inputs[:count], backend, poison)
        assert outcome.status.tolist() == [Status.OK] * count
        for key, given, output in zip(keys(algorithm), inputs, outcome.outputs, strict=False):
            assert is_right(algorithm, key, given, output)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.ifma
@pytest.mark.parametrize(("algorithm", "place"), CASES)
def test_every_bit(algorithm, place, faulty, keys):
    """Each bit of each value, in turning lanes. Some flips of bits that are masked away later are no fault."""
    bits = {"rsa2048": 1024, "rsa3072": 1536, "rsa4096": 2048}.get(algorithm, 256)
    for bit in range(bits if place != "rsa_recombined" else 2 * bits):
        strike(faulty, algorithm, keys(algorithm), "ifma8", bit % 8, place, bit)
