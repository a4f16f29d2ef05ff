"""RSA on 8 lanes, beyond what every backend is tested for (../test_rsa_private.py): faults, lanes without an operation,
exponents that differ between lanes, the portable build of the same code, and Intel's kernels as a second oracle.
"""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from kernels import Status

from ..conftest import RSA_SIZES, Loader, rows, rsa_numbers
from ..test_rsa_private import key_with_exponent

ALGORITHMS = pytest.mark.parametrize("algorithm", RSA_SIZES)
PLACES = ("rsa_p", "rsa_q", "rsa_recombined")


@pytest.fixture(params=[pytest.param("ifma8", marks=pytest.mark.ifma), "ifma8-portable"])
def vector_backend(request: pytest.FixtureRequest, hooks: ModuleType) -> str:
    name: str = request.param
    if not next(b for b in hooks.backends() if b.name == name).usable:
        pytest.skip(f"the backend {name} cannot run here")
    return name


FORMS: list[tuple[str | None, str | None]] = [
    (way, products) for way in ("eight", "four") for products in ("karatsuba", "schoolbook")
]
FORMS += [("lone", None), (None, None)]


@pytest.fixture(params=FORMS, ids=lambda form: "-".join(filter(None, form)) or "plan", autouse=True)
def form(request: pytest.FixtureRequest, hooks: ModuleType) -> Iterator[None]:
    """Every test runs in every form of the kernels (kernels/ifma8/rsa_ifma8_plan.h), whichever this host prefers, and
    as the plan says."""
    way, products = request.param
    hooks.force_rsa_way(way)
    hooks.force_rsa_products(products)
    yield
    hooks.force_rsa_way(None)
    hooks.force_rsa_products(None)


@pytest.fixture(scope="session")
def hook_keys(hooks: ModuleType) -> Callable[[str], list[Any]]:
    """Four different keys of an algorithm, of the library with hooks."""

    @cache
    def keys(algorithm: str) -> list[Any]:
        return [hooks.Key.generate(algorithm) for _ in range(4)]

    return keys


def eight(keys: list[Any]) -> list[Any]:
    return [keys[i % len(keys)] for i in range(8)]


def random_inputs(keys: list[Any]) -> list[bytes]:
    return [secrets.randbelow(rsa_numbers(k).n).to_bytes(RSA_SIZES[k.algorithm]) for k in keys]


def is_right(key: Any, block: bytes, output: np.ndarray) -> bool:
    numbers = rsa_numbers(key)
    return pow(int.from_bytes(output.tobytes()), numbers.e, numbers.n) == int.from_bytes(block)


@pytest.mark.slow(seconds=6)
@ALGORITHMS
@pytest.mark.parametrize("place", PLACES)
def test_a_flipped_bit_never_leaves(place, algorithm, vector_backend, faulty, hook_keys):
    """Any lane, low, middle and high bits: software redoes that lane, the counter moves, the others are not touched."""
    keys = eight(hook_keys(algorithm))
    bits = RSA_SIZES[algorithm] * 8 // (1 if place == "rsa_recombined" else 2)
    # The portable build is slow; the lanes are the same code there.
    lanes = range(8) if vector_backend == "ifma8" else ([0, 7] if algorithm == "rsa2048" else [5])
    for lane in lanes:
        inputs = random_inputs(keys)
        bit = (0, 51, 52, bits // 2, bits - 2, bits - 1, 1, secrets.randbelow(bits))[lane]
        before = faulty.faults(algorithm)
        faulty.inject_fault(algorithm, lane, place, bit)
        outcome = faulty.rsa_private(keys, rows(inputs), vector_backend)
        assert faulty.clear_faults() == 0, "nobody passed the place of the fault"
        assert outcome.status.tolist() == [Status.OK] * 8
        assert outcome.redone.tolist() == [i == lane for i in range(8)]
        assert faulty.faults(algorithm) == before + 1
        assert all(is_right(*it) for it in zip(keys, inputs, outcome.outputs, strict=True))


@pytest.mark.slow(seconds=3)
@pytest.mark.ifma
@ALGORITHMS
@pytest.mark.parametrize("place", PLACES)
def test_where_software_fails_too_nothing_is_written(place, algorithm, faulty, hook_keys):
    keys = eight(hook_keys(algorithm))[:5]
    inputs = random_inputs(keys)
    outputs = np.full((5, RSA_SIZES[algorithm]), 0xA5, np.uint8)
    faulty.inject_fault(algorithm, 3, place, 77)
    # Software is given the one lane by itself.
    faulty.inject_fault(algorithm, 0, "software", 0)
    outcome = faulty.rsa_private(keys, rows(inputs), "ifma8", outputs)
    assert outcome.status.tolist() == [Status.OK, Status.OK, Status.OK, Status.FAULT, Status.OK]
    assert (outputs[3] == 0xA5).all()
    assert not outcome.redone.any()
    good = [0, 1, 2, 4]
    assert all(is_right(keys[i], inputs[i], outputs[i]) for i in good)


@pytest.mark.ifma
def test_faults_in_several_lanes_at_once(faulty, hook_keys):
    keys = eight(hook_keys("rsa2048"))
    inputs = random_inputs(keys)
    struck = {0: "rsa_p", 1: "rsa_q", 4: "rsa_recombined", 7: "rsa_q"}
    for lane, place in struck.items():
        faulty.inject_fault("rsa2048", lane, place, 3 * lane)
    outcome = faulty.rsa_private(keys, rows(inputs), "ifma8")
    assert outcome.redone.tolist() == [lane in struck for lane in range(8)]
    assert all(is_right(*it) for it in zip(keys, inputs, outcome.outputs, strict=True))


@ALGORITHMS
@pytest.mark.parametrize("poison", [0x00, 0xA5, 0xFF])
def test_poisoned_lanes_and_workspace_change_nothing(poison, algorithm, vector_backend, hooks, hook_keys):
    counts = range(1, 9) if vector_backend == "ifma8" else ([5] if algorithm == "rsa4096" else [1, 6])
    for count in counts:
        keys = eight(hook_keys(algorithm))[:count]
        inputs = random_inputs(keys)
        outcome = hooks.run_poisoned(keys, inputs, vector_backend, poison)
        assert outcome.status.tolist() == [Status.OK] * count
        assert all(is_right(*it) for it in zip(keys, inputs, outcome.outputs, strict=True))


@pytest.mark.slow(seconds=2)
def test_public_exponents_may_differ_between_lanes(vector_backend, hooks, load_in_hooks: Loader):
    """The check then runs by squaring and multiplying with a mask."""
    exponents = (3, 65537, 17, 2**33 - 9, 257)
    keys = [load_in_hooks(key_with_exponent(e)) for e in exponents]
    inputs = random_inputs(keys)
    outcome = hooks.rsa_private(keys, rows(inputs), vector_backend)
    assert outcome.status.tolist() == [Status.OK] * len(keys)
    assert not outcome.redone.any()
    assert all(is_right(*it) for it in zip(keys, inputs, outcome.outputs, strict=True))


@ALGORITHMS
def test_every_form_gives_what_software_gives(algorithm, vector_backend, hooks, hook_keys):
    keys = eight(hook_keys(algorithm))
    n = [rsa_numbers(k).n for k in keys]
    values = [0, 1, n[2] - 1, 2, n[4] >> 1, n[5] - 2, 1 << 1500, secrets.randbelow(n[7])]
    inputs = rows([v.to_bytes(RSA_SIZES[algorithm]) for v in values])
    ours = hooks.rsa_private(keys, inputs, vector_backend)
    assert not ours.redone.any()
    assert np.array_equal(ours.outputs, hooks.rsa_private(keys, inputs, "software").outputs)


@pytest.mark.parametrize(
    ("algorithm", "multiplications", "instructions"),
    [("rsa2048", 550_775, 815_488), ("rsa3072", 2_082_368, 2_596_273), ("rsa4096", 4_294_100, 5_140_113)],
)
def test_a_lone_operation_takes_as_many_instructions_as_documented(algorithm, multiplications, instructions, hooks):
    """Counted in the portable build of the same C, check included; they do not depend on the key."""
    hooks.force_rsa_way("lone")
    key = hooks.Key.generate(algorithm)
    before = hooks.multiplications(), hooks.vector_instructions()
    assert not hooks.rsa_private([key], rows([bytes(RSA_SIZES[algorithm])]), "ifma8-portable").redone.any()
    assert hooks.multiplications() - before[0] == multiplications
    assert hooks.vector_instructions() - before[1] == instructions


# Intel's kernels


@pytest.fixture(scope="session")
def crypto_mb() -> ctypes.CDLL:
    from benchmarks.crypto_mb import library

    try:
        return library()
    except OSError as error:
        pytest.skip(f"crypto_mb is not installed (pip install .[bench]): {error}")


@pytest.mark.slow(seconds=5)
@pytest.mark.ifma
@ALGORITHMS
def test_crypto_mb_gives_the_same(algorithm, crypto_mb, load_in_hooks: Loader, hooks):
    from cryptography.hazmat.primitives.asymmetric import rsa

    from benchmarks.crypto_mb import RsaPrivate

    size = RSA_SIZES[algorithm]
    privates = [rsa.generate_private_key(65537, size * 8) for _ in range(3)]
    chosen = [privates[i % 3] for i in range(8)]
    inputs = [secrets.randbelow(k.public_key().public_numbers().n).to_bytes(size) for k in chosen]
    intel = RsaPrivate(crypto_mb, chosen)
    keys = [load_in_hooks(k) for k in privates]
    ours = hooks.rsa_private([keys[i % 3] for i in range(8)], rows(inputs), "ifma8")
    assert intel(inputs) == [o.tobytes() for o in ours.outputs]
