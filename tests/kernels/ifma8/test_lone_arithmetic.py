"""The multiplication of one number over lanes against Python's integers, at its limits: in both builds, with the bounds
of the generator asserted.
"""

from __future__ import annotations

import ctypes
import secrets
import subprocess
import sys

import numpy as np
import pytest

from .conftest import HERE, ROOT, Build, Limbs, module_from

GENERATE = ROOT / "kernels" / "generate"
LIMB_BITS = 52
LIMB_MASK = (1 << LIMB_BITS) - 1
SIZES = {5: 1024, 8: 1536, 10: 2048}  # registers: bits of a prime
LAYOUTS = {"pair": 2, "whole": 1}  # numbers in a register


class Numbers:
    """Numbers of one size and layout, in lanes and out of them (kernels/ifma8/montgomery_lone_ifma8.h)."""

    def __init__(self, registers: int, layout: str) -> None:
        self.registers, self.count = registers, LAYOUTS[layout]
        self.bits = SIZES[registers] * (1 if layout == "pair" else 2)
        self.blocks = 8 // self.count
        self.block_bits = LIMB_BITS * registers - 1
        self.r = 1 << self.block_bits * self.blocks

    def lanes(self, values: list[int]) -> Limbs:
        lanes = np.zeros((self.registers, 8), np.uint64)
        for index, value in enumerate(values):
            assert value < self.r
            for block in range(self.blocks):
                part = value >> self.block_bits * block & (1 << self.block_bits) - 1
                for i in range(self.registers):
                    lanes[i, self.count * block + index] = part >> LIMB_BITS * i & LIMB_MASK
        return lanes

    def values(self, lanes: Limbs) -> list[int]:
        def block(number: int, index: int) -> int:
            column = lanes[:, self.count * number + index]
            return sum((int(x) & LIMB_MASK) << LIMB_BITS * i for i, x in enumerate(column))

        return [sum(block(i, index) << self.block_bits * i for i in range(self.blocks)) for index in range(self.count)]

    def constants(self, moduli: list[int]) -> tuple[Limbs, Limbs, Limbs]:
        """N, 1 / B mod N, and -1 / N_0 mod 2^(52 s) in the lanes of the lowest block."""
        inverse = np.zeros((self.registers, 8), np.uint64)
        for index, n in enumerate(moduli):
            lowest = n & (1 << self.block_bits) - 1
            value = pow(-lowest, -1, 1 << LIMB_BITS * self.registers)
            for i in range(self.registers):
                inverse[i, index] = value >> LIMB_BITS * i & LIMB_MASK
        return self.lanes(moduli), self.lanes([pow(1 << self.block_bits, -1, n) for n in moduli]), inverse


@pytest.fixture(scope="session")
def library(build: Build) -> ctypes.CDLL:
    source = build.folder / "montgomery_lone.c"
    subprocess.run([sys.executable, str(GENERATE / "lone.py"), str(source)], check=True)
    return ctypes.CDLL(str(build.compile([HERE / "lone_arithmetic.c", source], "lone.so", "-shared", "-fPIC")))


def multiply(library: ctypes.CDLL, numbers: Numbers, a: Limbs, b: Limbs, moduli: list[int], in_place: int = 0) -> Limbs:
    result = np.zeros((numbers.registers, 8), np.uint64)
    arrays = (a, b, *numbers.constants(moduli), result)
    library.multiply(numbers.registers, numbers.count, in_place, *(ctypes.c_void_p(x.ctypes.data) for x in arrays))
    return result


def check(library: ctypes.CDLL, numbers: Numbers, a: list[int], b: list[int], moduli: list[int]) -> Limbs:
    """a b / R mod N, below 4.01 N."""
    result = multiply(library, numbers, numbers.lanes(a), numbers.lanes(b), moduli)
    for x, y, n, got in zip(a, b, moduli, numbers.values(result), strict=True):
        assert got % n == x * y * pow(numbers.r, -1, n) % n
        largest = 100 * max(x, y)
        assert 100 * got < (401 if largest <= 401 * n else 404 if largest <= 901 * n else 500) * n
    return result


def odd_moduli(numbers: Numbers) -> list[list[int]]:
    """The smallest and the largest of the size, one with blocks of ones and of zeros, and random ones."""
    top = 1 << numbers.bits - 1
    blocks = top | sum((1 << numbers.block_bits) - 1 << 2 * i * numbers.block_bits for i in range(numbers.blocks // 2))
    single = [top | 1, 2 * top - 1, blocks, *(top | secrets.randbits(numbers.bits) | 1 for _ in range(3))]
    return [[n, single[(i + 1) % len(single)]][: numbers.count] for i, n in enumerate(single)]


def limits(n: int) -> list[int]:
    return [0, 1, n - 1, n, 2 * n - 1, 4 * n, 401 * n // 100, 901 * n // 100, secrets.randbelow(4 * n)]


cases = pytest.mark.parametrize("layout", LAYOUTS)
sizes = pytest.mark.parametrize("registers", SIZES)


@cases
@sizes
def test_products_of_numbers_at_the_limits(registers, layout, library):
    numbers = Numbers(registers, layout)
    for moduli in odd_moduli(numbers):
        of = [limits(n) for n in moduli]
        for i in range(len(of[0])):
            for j in range(len(of[0])):
                check(library, numbers, [x[i] for x in of], [x[j] for x in of], moduli)


@cases
@sizes
def test_any_number_below_r_times_one_below_n(registers, layout, library):
    """Limbs of all ones: columns are as large as they can be, and carries run as far as they can."""
    numbers = Numbers(registers, layout)
    for moduli in odd_moduli(numbers):
        ones = [numbers.r - 1] * numbers.count
        for small in ([n - 1 for n in moduli], [1] * numbers.count, [n >> 1 for n in moduli]):
            check(library, numbers, ones, small, moduli)
            check(library, numbers, small, ones, moduli)


@cases
@sizes
def test_bits_above_a_limb_do_not_count(registers, layout, library):
    """A stored limb may have bits above the 52nd, which have been carried already."""
    numbers = Numbers(registers, layout)
    moduli = odd_moduli(numbers)[-1]
    a = numbers.lanes([n - 2 for n in moduli])
    dirty = a | np.uint64(0xFFF << LIMB_BITS)
    clean = multiply(library, numbers, a, a, moduli)
    assert numbers.values(multiply(library, numbers, dirty, dirty, moduli)) == numbers.values(clean)


@cases
@sizes
@pytest.mark.parametrize("in_place", [1, 2])
def test_the_result_may_take_the_place_of_a_factor(in_place, registers, layout, library):
    numbers = Numbers(registers, layout)
    moduli = odd_moduli(numbers)[-1]
    a, b = (numbers.lanes([secrets.randbelow(4 * n) for n in moduli]) for _ in range(2))
    apart = multiply(library, numbers, a, b, moduli)
    assert np.array_equal(multiply(library, numbers, a, b, moduli, in_place), apart)


@cases
@sizes
def test_a_long_chain_of_squares_stays_within_its_bound(registers, layout, library):
    """Each result is used as it comes, with the bits above its limbs."""
    numbers = Numbers(registers, layout)
    moduli = odd_moduli(numbers)[-1]
    expected = [401 * n // 100 for n in moduli]
    x = numbers.lanes(expected)
    for _ in range(50):
        x = multiply(library, numbers, x, x, moduli)
        expected = [v * v * pow(numbers.r, -1, n) % n for v, n in zip(expected, moduli, strict=True)]
        assert [v % n for v, n in zip(numbers.values(x), moduli, strict=True)] == expected
        assert all(100 * v < 401 * n for v, n in zip(numbers.values(x), moduli, strict=True))


def test_carries_end_in_the_spare_bit(library):
    """N of all ones: products of powers of two are runs of ones, so that a carry goes all the way up a block."""
    numbers = Numbers(5, "pair")
    n = (1 << numbers.bits) - 1
    for k in range(0, numbers.bits, 37):
        check(library, numbers, [1 << k, n - (1 << k)], [n - 1, (1 << k) - 1], [n, n])


def test_columns_that_could_overflow_are_refused(monkeypatch):
    """The generator's bounds: numbers of 40 registers would add too many halves of products to a column."""
    monkeypatch.syspath_prepend(str(GENERATE))
    lone = module_from(GENERATE / "lone.py")
    with pytest.raises(sys.modules["straight_line"].BoundError):
        lone.Multiplication(40, lone.WHOLE).write()
