"""Limbs against Python's integers, with every proved bound asserted while it runs."""

from __future__ import annotations

import random

import numpy as np
import pytest

from .conftest import CURVES, LIMB_BITS, curves

CURVE = pytest.mark.parametrize("curve", CURVES)
WEIERSTRASS = pytest.mark.parametrize("curve", ["p256", "p384"])
ROUNDS = 40


@pytest.fixture
def arithmetic(curve, arithmetic_of):
    return arithmetic_of(curve)


def unit(a) -> int:
    """The power of two just above p, in which the bounds are counted."""
    return 1 << a.curve.p.bit_length()


def factor(a):
    """1/R mod p for the curves in Montgomery form."""
    return pow(a.curve.r, -1, a.curve.p) if a.curve.b else 1


def edge_numbers(limit: int, modulus: int) -> list[int]:
    """Numbers below `limit` that carries and comparisons stumble over."""
    near = [modulus * k + i for k in range(limit // modulus + 1) for i in (-2, -1, 0, 1, 2)]
    powers = [(1 << e) + i for e in range(0, limit.bit_length(), 26) for i in (-1, 0)]
    return sorted({x for x in [*near, *powers, limit - 1] if 0 <= x < limit})


def batches(rng: random.Random, limit: int, modulus: int, rounds: int = ROUNDS):
    """Batches of eight: edge numbers first, then random ones."""
    edges = edge_numbers(limit, modulus)
    edges += [rng.randrange(limit) for _ in range(-len(edges) % 8)]
    yield from (edges[i : i + 8] for i in range(0, len(edges), 8))
    for _ in range(rounds):
        yield [rng.randrange(limit) for _ in range(8)]


@CURVE
def test_field_multiplication(arithmetic):
    a, rng = arithmetic, random.Random(1)
    p, limit = a.curve.p, 5 * unit(a)
    # 5.3 * 5.3 / 16 + 1 units on P-256, and less elsewhere
    highest = 3 * unit(a)
    for xs in batches(rng, limit, p):
        ys = [rng.choice([rng.randrange(limit), limit - 1, p, 0, 1]) for _ in range(8)]
        products = a.compute("field_multiply", a.limbs(xs), a.limbs(ys))
        squares = a.compute("field_square", a.limbs(xs))
        for x, y, product, square in zip(xs, ys, products, squares, strict=True):
            assert (product - x * y * factor(a)) % p == 0
            assert (square - x * x * factor(a)) % p == 0
            assert 0 <= product < highest
            assert 0 <= square < highest


@CURVE
def test_folding_open_numbers_of_either_sign(arithmetic):
    a, rng = arithmetic, random.Random(2)
    p, limbs = a.curve.p, a.curve.limbs
    top_unit = unit(a) >> LIMB_BITS * (limbs - 1)
    for _ in range(200):
        low = np.array([[rng.randrange(-(1 << 57), 1 << 57) for _ in range(8)] for _ in range(limbs - 1)], np.int64)
        top = np.array([[rng.randrange(-15 * top_unit, 15 * top_unit) for _ in range(8)]], np.int64)
        limbs_open = np.concatenate([low, top]).astype(np.uint64)
        result = a.compute("field_fold", limbs_open)
        for before, after in zip(a.values(limbs_open), result, strict=True):
            assert (before - after) % p == 0
            assert 0 <= after < unit(a) * 201 // 100


@CURVE
def test_order_multiplication_and_reduction(arithmetic):
    a, rng = arithmetic, random.Random(3)
    n = a.curve.n
    inverse = pow(a.curve.r, -1, n)
    for xs in batches(rng, 4 * n, n):
        ys = [rng.choice([rng.randrange(4 * n), 4 * n - 1, n, 0]) for _ in range(8)]
        for x, y, got in zip(xs, ys, a.compute("order_multiply", a.limbs(xs), a.limbs(ys)), strict=True):
            assert (got - x * y * inverse) % n == 0
            assert 0 <= got < 2 * n
        halves = [x % (2 * n) for x in xs]
        assert a.compute("reduce_once_order", a.limbs(halves)) == [x % n for x in halves]


@CURVE
def test_carries_of_signed_limbs(arithmetic):
    a, rng = arithmetic, random.Random(4)
    for _ in range(100):
        limbs = np.array(
            [[rng.randrange(-(1 << 59), 1 << 59) for _ in range(8)] for _ in range(a.curve.limbs)], np.int64
        ).astype(np.uint64)
        result = a.empty()
        a.call("carry", limbs, result)
        assert a.values(result) == a.values(limbs)
        assert (result[:-1] < 1 << LIMB_BITS).all()


@CURVE
def test_words_and_limbs(arithmetic):
    a, rng = arithmetic, random.Random(5)
    words = a.curve.limbs * LIMB_BITS // 64
    for xs in batches(rng, 1 << 64 * words, a.curve.p, 10):
        given = np.array([[x >> 64 * i & (1 << 64) - 1 for i in range(words)] for x in xs], np.uint64)
        limbs, back = a.empty(), np.zeros_like(given)
        a.call("words_to_limbs", given, limbs, back)
        assert a.values(limbs) == xs
        assert (back == given).all()


@CURVE
def test_inversion(arithmetic):
    """1/a, times the power of two that the batches leave; 0 gives 0; a pair gives what one alone gives."""
    a, rng = arithmetic, random.Random(6)
    p, n = a.curve.p, a.curve.n
    left = pow(2, -curves.divstep_batches(p.bit_length()), p), pow(2, -curves.divstep_batches(p.bit_length()), n)
    for xs in batches(rng, p, p, 25):
        ys = [x % n for x in xs]
        results = a.empty(), a.empty()
        a.call("invert", a.limbs(xs), a.limbs(ys), *results)
        for given, result, modulus, factor_left in ((xs, results[0], p, left[0]), (ys, results[1], n, left[1])):
            for x, got in zip(given, a.values(result), strict=True):
                expected = pow(x, -1, modulus) * factor_left % modulus if x else 0
                assert 0 <= got < 4 * modulus
                assert got % modulus == expected


def affine(a, coordinates, lane):
    """(x, y) of a lane of the comb's result."""
    p = a.curve.p
    count = a.curve.limbs
    x, y, z, w = (a.values(coordinates[i * count : (i + 1) * count])[lane] for i in range(4))
    if a.curve.b:
        return x * pow(z, -1, p) % p, y * pow(w, -1, p) % p
    return x * pow(z, -1, p) % p, y * pow(z, -1, p) % p


def multiple(curve, k):
    """k times the generator, by double and add."""
    result, addend = None, curve.generator
    while k:
        if k & 1:
            result = addend if result is None else curve.add(curve, result, addend)
        addend = curve.add(curve, addend, addend)
        k >>= 1
    return result


@pytest.mark.slow(seconds=3)
@CURVE
def test_comb_is_the_multiple_of_the_generator(arithmetic):
    a, rng = arithmetic, random.Random(7)
    p, n = a.curve.p, a.curve.n
    scalars = [1, 2, 3, 127, 128, 129, n - 1, n - 2, (1 << 252) - 1, 1 << 251, n // 2, n // 2 + 1]
    scalars += [rng.randrange(1, n) for _ in range(12)]
    for start in range(0, len(scalars), 8):
        batch = scalars[start : start + 8]
        coordinates = a.empty(4)
        assert a.call("multiply_base", a.limbs(batch), coordinates) == 0xFF, "tags"
        assert a.call("on_curve", coordinates) & 0xFF == 0xFF
        for lane, k in enumerate(batch):
            x, y = multiple(a.curve, k if k % 2 else n - k)
            got = affine(a, coordinates, lane)
            if a.curve.b:
                assert got in ((x, y), (x, p - y))
            else:
                assert got == (x, y)


@CURVE
def test_every_changed_coordinate_leaves_the_curve(arithmetic):
    a, rng = arithmetic, random.Random(8)
    coordinates = a.empty(4)
    a.call("multiply_base", a.limbs([rng.randrange(1, a.curve.n) for _ in range(8)]), coordinates)
    for row in range(4 * a.curve.limbs):
        for lane in range(8):
            changed = coordinates.copy()
            changed[row, lane] ^= np.uint64(1 << rng.randrange(16))
            assert a.call("on_curve", changed) & 0xFF == 0xFF ^ 1 << lane


@WEIERSTRASS
def test_the_one_exceptional_scalar_is_noticed(arithmetic):
    """The doubling in the last window, weierstrass_ifma8_comb.h: the denominators become 0."""
    a = arithmetic
    n, windows = a.curve.n, a.curve.windows
    top = 7 * (windows - 1)
    exceptional = 2 * ((1 << n.bit_length() - top) - 1 << top) - n
    assert 0 < exceptional < n
    coordinates = a.empty(4)
    a.call("multiply_base", a.limbs([exceptional, n - exceptional, 1, 2, 3, 4, 5, 6]), coordinates)
    denominators = a.values(coordinates[2 * a.curve.limbs : 3 * a.curve.limbs])
    assert [x % a.curve.p == 0 for x in denominators] == [True, True] + [False] * 6
