"""The hedged nonces of the vector kernels: the reduction is exact, and what goes in comes out different."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from .conftest import ORDER_SIZES, ORDERS

ALGORITHMS = pytest.mark.parametrize("algorithm", ORDER_SIZES)


@pytest.mark.slow(seconds=3)
@ALGORITHMS
def test_reduction_is_wide_mod_order_minus_one_plus_one(algorithm, hooks):
    modulus = ORDERS[algorithm] - 1
    near = st.tuples(st.integers(0, 2**512 // modulus), st.integers(-3, 3)).map(lambda t: t[0] * modulus + t[1])

    @settings(max_examples=1500, deadline=None)
    @given(st.one_of(st.integers(0, 2**512 - 1), near.filter(lambda x: 0 <= x < 2**512)))
    @example(0)
    @example(modulus - 1)
    @example(modulus)
    @example(2**512 - 1)
    @example(2**512 // modulus * modulus)
    @example(2**512 // modulus * modulus - 1)
    def run(wide):
        assert hooks.nonce_from_wide(algorithm, wide.to_bytes(64)) == wide % modulus + 1

    run()


@ALGORITHMS
def test_nonces_are_in_range_and_all_different(algorithm, hooks):
    """Same key, same digest: lanes of a batch and batches after each other differ by lane number and fresh bytes."""
    key = hooks.Key.generate(algorithm)
    digests = np.zeros((8, ORDER_SIZES[algorithm]), np.uint8)
    nonces = [k for _ in range(200) for k in hooks.derived_nonces(key, digests)]
    assert len(set(nonces)) == len(nonces)
    assert all(1 <= k < ORDERS[algorithm] for k in nonces)


@ALGORITHMS
def test_top_and_bottom_bits_are_not_biased(algorithm, hooks):
    """A rough look, for gross mistakes such as a short nonce: each bit is set about half the time."""
    key = hooks.Key.generate(algorithm)
    digests = np.zeros((8, ORDER_SIZES[algorithm]), np.uint8)
    nonces = [k for _ in range(250) for k in hooks.derived_nonces(key, digests)]
    bits = 8 * ORDER_SIZES[algorithm]
    for bit in range(bits):
        ones = sum(k >> bit & 1 for k in nonces)
        # 2000 draws: 1000 +- 22 (one sigma); 7 sigma over 640 bits never happens by chance.
        assert 844 < ones < 1156, f"bit {bit} is set {ones} times in 2000"
    if algorithm == "p256":
        # The order begins with 32 ones and then 32 zeros, so a nonce taken modulo 2^256 would show here.
        assert max(nonces) < ORDERS[algorithm]


@ALGORITHMS
def test_known_nonces_are_taken_and_cleared(algorithm, faulty):
    key = faulty.Key.generate(algorithm)
    size = ORDER_SIZES[algorithm]
    digests = np.zeros((3, size), np.uint8)
    faulty.known_nonces(np.full((3, size), 7, np.uint8))
    assert faulty.derived_nonces(key, digests) == [int.from_bytes(bytes([7]) * size)] * 3
    faulty.known_nonces(None)
    assert len(set(faulty.derived_nonces(key, digests))) == 3
