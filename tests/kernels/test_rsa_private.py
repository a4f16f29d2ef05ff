"""Bare RSA on every backend: output = input^d mod n.

The oracle is the public exponent: raising to e is a bijection below n, so output^e = input means that every bit is
right.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import Status, rsa_private

from .conftest import RSA_SIZES, nist_records, rows, rsa_key, rsa_numbers, skip_without_kernel

ALGORITHMS = pytest.mark.parametrize("algorithm", RSA_SIZES)
NIST_FILES = ("RSA/FIPS_186-2/SigVer15_186-3.rsp", "RSA/FIPS_186-2/SigVerPSS_186-3.rsp")


def check(keys, inputs, outcome):
    """Every lane is good, and right by the public exponent."""
    assert outcome.status.tolist() == [Status.OK] * len(keys)
    assert not outcome.redone.any(), "a lane failed its check and was redone in software"
    for key, block, output in zip(keys, inputs, outcome.outputs, strict=True):
        numbers = rsa_numbers(key)
        assert pow(int.from_bytes(output.tobytes()), numbers.e, numbers.n) == int.from_bytes(block)


def below_modulus(keys, values):
    return [(v % rsa_numbers(k).n).to_bytes(len_of(k)) for k, v in zip(keys, values, strict=True)]


def len_of(key):
    return RSA_SIZES[key.algorithm]


@pytest.mark.slow(seconds=7)
@ALGORITHMS
@pytest.mark.parametrize("count", range(1, 9))
def test_partial_batches_of_different_keys(algorithm, count, backend, pool):
    keys = (pool(algorithm) * 2)[:count]
    inputs = below_modulus(keys, [3**2000 + 7**i for i in range(count)])
    check(keys, inputs, rsa_private(keys, rows(inputs), backend))


@pytest.mark.slow(seconds=7)
@ALGORITHMS
def test_every_lane_gives_the_same_as_alone(algorithm, backend, pool):
    key = pool(algorithm)[0]
    (block,) = below_modulus([key], [5**1700])
    alone = rsa_private(key, rows([block]), "software").outputs[0].tobytes()
    others = pool(algorithm)[1:]
    for lane in range(8):
        keys = (others * 3)[:8]
        keys[lane] = key
        inputs = below_modulus(keys, [11**i * 5**1700 for i in range(8)])
        inputs[lane] = block
        outcome = rsa_private(keys, rows(inputs), backend)
        assert outcome.outputs[lane].tobytes() == alone


@ALGORITHMS
def test_one_key_in_all_lanes_and_more_than_one_batch(algorithm, backend, pool):
    key = pool(algorithm)[1]
    inputs = below_modulus([key] * 19, [2**2000 + i for i in range(19)])
    check([key] * 19, inputs, rsa_private(key, rows(inputs), backend))


@ALGORITHMS
def test_smallest_and_largest_inputs(algorithm, backend, pool):
    keys = (pool(algorithm) * 2)[:8]
    size = RSA_SIZES[algorithm]
    n = [rsa_numbers(k).n for k in keys]
    values = [0, 1, 2, n[3] - 1, n[4] - 2, n[5] >> 1, 1 << (8 * size - 20), 255]
    inputs = [v.to_bytes(size) for v in values]
    outcome = rsa_private(keys, rows(inputs), backend)
    check(keys, inputs, outcome)
    assert int.from_bytes(outcome.outputs[0].tobytes()) == 0
    assert int.from_bytes(outcome.outputs[1].tobytes()) == 1
    assert int.from_bytes(outcome.outputs[3].tobytes()) == n[3] - 1  # d is odd


@ALGORITHMS
def test_inputs_that_a_prime_divides(algorithm, backend, load):
    """0 mod p or mod q: one half of the CRT is zero."""
    size = RSA_SIZES[algorithm]
    private = next(nist_keys(size))
    p, q = private.private_numbers().p, private.private_numbers().q
    inputs = [v.to_bytes(size) for v in (p, q, p * (q - 1), q * (p - 1), p * 2, q * 3, p * p % (p * q), p * q - p)]
    key = load(private)
    check([key] * 8, inputs, rsa_private(key, rows(inputs), backend))


@ALGORITHMS
def test_modulus_and_above_are_refused_and_nothing_is_written(algorithm, backend, pool):
    keys = (pool(algorithm) * 2)[:5]
    size = RSA_SIZES[algorithm]
    n = [rsa_numbers(k).n for k in keys]
    inputs = [v.to_bytes(size) for v in (n[0], 12345, n[2] + 1, (1 << 8 * size) - 1, n[4] - 1)]
    outputs = np.full((5, size), 0xA5, np.uint8)
    outcome = rsa_private(keys, rows(inputs), backend, outputs)
    bad = Status.BAD_RANGE
    assert outcome.status.tolist() == [bad, Status.OK, bad, bad, Status.OK]
    for lane in (0, 2, 3):
        assert (outputs[lane] == 0xA5).all()
    good = [1, 4]
    theirs = type(outcome)(outcome.outputs[good], outcome.status[good], outcome.redone[good])
    check([keys[i] for i in good], [inputs[i] for i in good], theirs)


@pytest.mark.slow(seconds=13)
def test_keys_of_another_size_are_refused_lane_by_lane(any_backend, pool):
    skip_without_kernel(any_backend, "rsa2048")
    two, three = pool("rsa2048"), pool("rsa3072")
    inputs = rows([bytes(255) + bytes([i]) for i in range(4)])
    outcome = rsa_private([two[0], three[0], two[1], pool("p256")[0]], inputs, any_backend)
    assert outcome.status.tolist() == [Status.OK, Status.BAD_KEY, Status.OK, Status.BAD_KEY]
    assert not outcome.outputs[[1, 3]].any()


@ALGORITHMS
def test_wrong_size_is_refused(algorithm, backend, pool):
    for size in (RSA_SIZES[algorithm] - 1, RSA_SIZES[algorithm] + 1, 1):
        outcome = rsa_private(pool(algorithm)[:2], np.zeros((2, size), np.uint8), backend)
        assert outcome.status.tolist() == [Status.BAD_SIZE] * 2


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize("e", [3, 17, 257, 65539, 2**31 - 1, 2**33 - 9])
def test_public_exponents(e, any_backend, load):
    skip_without_kernel(any_backend, "rsa2048")
    key = load(key_with_exponent(e))
    inputs = below_modulus([key] * 8, [e**100 + 3**1200 * i for i in range(8)])
    check([key] * 8, inputs, rsa_private(key, rows(inputs), any_backend))


def key_with_exponent(e):
    """A 2048-bit key for which e is invertible."""
    from math import gcd

    from cryptography.hazmat.primitives.asymmetric import rsa

    while True:
        numbers = rsa.generate_private_key(65537, 2048).private_numbers()
        p, q = numbers.p, numbers.q
        if gcd(e, (p - 1) * (q - 1)) == 1:
            return rsa_key(p * q, e, pow(e, -1, (p - 1) * (q - 1)), (p, q))


def test_either_prime_may_be_the_larger(any_backend, load):
    skip_without_kernel(any_backend, "rsa2048")
    numbers = key_with_exponent(65537).private_numbers()
    n, d = numbers.public_numbers.n, numbers.d
    keys = [load(rsa_key(n, 65537, d, primes)) for primes in ((numbers.p, numbers.q), (numbers.q, numbers.p))]
    inputs = below_modulus(keys * 4, [7**700 * i for i in range(1, 9)])
    check(keys * 4, inputs, rsa_private(keys * 4, rows(inputs), any_backend))


def nist_signatures(path, size):
    """(private key, signature) of the valid signatures of one modulus size, with exponents that are served."""
    made = {}
    for record in nist_records(path):
        n, e = int(record["n"], 16), int(record["e"], 16)
        if n.bit_length() != 8 * size or e.bit_length() > 33 or not record.get("Result", "").startswith("P"):
            continue
        if (n, e) not in made:
            made[n, e] = rsa_key(n, e, int(record["d"], 16), (int(record["p"], 16), int(record["q"], 16)))
        yield made[n, e], int(record["S"], 16)


def nist_keys(size):
    return (key for key, _ in nist_signatures(NIST_FILES[0], size))


@pytest.mark.parametrize("path", NIST_FILES)
@ALGORITHMS
def test_nist_vectors_in_every_lane(path, algorithm, backend, load):
    """CAVP SigVer, whose valid signatures come with the private key: S^e is the encoded block, and signs to S."""
    size = RSA_SIZES[algorithm]
    vectors = list(nist_signatures(path, size))
    assert len(vectors) >= 6, "the vectors have gone"
    loaded = {id(key): load(key) for key, _ in vectors}
    for shift in range(8):
        turned = vectors[shift:] + vectors[:shift]
        publics = [key.public_key().public_numbers() for key, _ in turned]
        blocks = [pow(s, public.e, public.n).to_bytes(size) for (_, s), public in zip(turned, publics, strict=True)]
        outcome = rsa_private([loaded[id(key)] for key, _ in turned], rows(blocks), backend)
        assert [int.from_bytes(o.tobytes()) for o in outcome.outputs] == [s for _, s in turned]


@pytest.mark.slow(seconds=2)
@ALGORITHMS
def test_random_inputs(algorithm, backend, pool):
    keys = pool(algorithm)

    @settings(
        max_examples=12 if algorithm == "rsa4096" else 25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(st.tuples(st.sampled_from(keys), st.integers(0, 2**4096)), min_size=1, max_size=8))
    def run(lanes):
        chosen = [k for k, _ in lanes]
        inputs = below_modulus(chosen, [v for _, v in lanes])
        check(chosen, inputs, rsa_private(chosen, rows(inputs), backend))

    run()


@pytest.mark.long
@pytest.mark.timeout(1800)
@ALGORITHMS
def test_random_keys_and_inputs_for_long(algorithm, backend):
    """Fresh keys all the time: rare carries depend on the modulus."""
    import secrets

    import kernels

    for _ in range({"rsa2048": 60, "rsa3072": 25, "rsa4096": 10}[algorithm]):
        keys = [kernels.Key.generate(algorithm) for _ in range(8)]
        for _ in range(20):
            inputs = below_modulus(keys, [secrets.randbits(4096) for _ in keys])
            check(keys, inputs, rsa_private(keys, rows(inputs), backend))
