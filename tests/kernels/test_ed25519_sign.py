"""Ed25519 on every backend. Deterministic, so every oracle is exact."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import Status, ed25519_sign

from .conftest import CRYPTOGRAPHY_VECTORS, skip_without_kernel

SEEDS = [bytes([i]) * 32 for i in (0, 1, 127, 128, 255)] + [bytes(range(i, i + 32)) for i in (3, 60, 200)]


@pytest.fixture(scope="module")
def pairs(load):
    """Private keys as OpenSSL and as we hold them."""
    privates = [Ed25519PrivateKey.from_private_bytes(seed) for seed in SEEDS]
    return [(private, load(private)) for private in privates]


def rfc8032_vectors():
    """(seed, message, signature): the file of 1024 signatures by the authors of Ed25519; holds the RFC's own."""
    for line in (CRYPTOGRAPHY_VECTORS / "Ed25519" / "sign.input").read_text().splitlines():
        secret, _, message, signed, *_ = line.split(":")
        yield bytes.fromhex(secret)[:32], bytes.fromhex(message), bytes.fromhex(signed)[:64]


def check(privates, messages, outcome):
    assert outcome.status.tolist() == [Status.OK] * len(messages)
    assert not outcome.redone.any(), "a lane failed its check and was redone in software"
    for private, message, output in zip(privates, messages, outcome.outputs, strict=True):
        assert output.tobytes() == private.sign(message)


@pytest.mark.slow(seconds=2)
def test_rfc8032_vectors_in_every_lane(backend, load):
    vectors = list(rfc8032_vectors())
    assert len(vectors) == 1024
    keys = [load(Ed25519PrivateKey.from_private_bytes(seed)) for seed, _, _ in vectors]
    for shift in range(8):
        turned = vectors[shift:] + vectors[:shift]
        outcome = ed25519_sign(keys[shift:] + keys[:shift], [message for _, message, _ in turned], backend)
        assert [o.tobytes() for o in outcome.outputs] == [signature for _, _, signature in turned]


@pytest.mark.parametrize("count", range(1, 9))
def test_partial_batches_of_different_keys(count, backend, pairs):
    messages = [b"x" * (i * 37) for i in range(count)]
    outcome = ed25519_sign([key for _, key in pairs[:count]], messages, backend)
    check([private for private, _ in pairs[:count]], messages, outcome)


def test_one_key_in_all_lanes_with_lengths_around_the_blocks_of_the_hash(backend, pairs):
    """Lanes of one batch hash different numbers of blocks: 111/112 and 127/128 are where SHA-512 takes one more."""
    private, key = pairs[6]
    lengths = [0, 1, 31, 32, 33, 46, 47, 48, 63, 64, 65, 79, 80, 95, 96, 97, 110, 111, 112, 127, 128, 129]
    lengths += [239, 240, 255, 256, 257, 1000, 4096, 16384]
    messages = [bytes(i % 251 for i in range(length)) for length in lengths]
    check([private] * len(messages), messages, ed25519_sign(key, messages, backend))
    check([private] * len(messages), messages[::-1], ed25519_sign(key, messages[::-1], backend))


def test_messages_may_be_an_array(backend, pairs):
    array = np.arange(8 * 50, dtype=np.uint8).reshape(8, 50)
    outcome = ed25519_sign([key for _, key in pairs], array, backend)
    check([private for private, _ in pairs], [row.tobytes() for row in array], outcome)


def test_random_keys_and_messages(backend, load):
    lane = st.tuples(st.binary(min_size=32, max_size=32), st.binary(max_size=600))

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(lane, min_size=1, max_size=8))
    def run(lanes):
        privates = [Ed25519PrivateKey.from_private_bytes(seed) for seed, _ in lanes]
        messages = [message for _, message in lanes]
        check(privates, messages, ed25519_sign([load(p) for p in privates], messages, backend))

    run()


def test_keys_of_another_kind_are_refused_lane_by_lane(any_backend, pairs, pool):
    skip_without_kernel(any_backend, "ed25519")
    outcome = ed25519_sign([pairs[0][1], pool("p256")[0]], [b"a", b"b"], any_backend)
    assert outcome.status.tolist() == [Status.OK, Status.BAD_KEY]
    assert not outcome.outputs[1].any()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_random_messages_for_long(backend, load):
    import secrets

    for _ in range(500):
        privates = [Ed25519PrivateKey.from_private_bytes(secrets.token_bytes(32)) for _ in range(8)]
        keys = [load(private) for private in privates]
        for _ in range(20):
            messages = [secrets.token_bytes(secrets.randbelow(400)) for _ in range(8)]
            check(privates, messages, ed25519_sign(keys, messages, backend))
