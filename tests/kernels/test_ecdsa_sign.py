"""ECDSA on every backend: digest to r, s.

Known nonces (a testing hook) give the published r and s; with the backend's own nonces the oracle is verification.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import Status, ecdsa_sign

from .conftest import (
    CRYPTOGRAPHY_VECTORS,
    CURVES,
    ORDER_SIZES,
    ORDERS,
    nist_records,
    public_key,
    rows,
    skip_without_kernel,
)

ALGORITHMS = pytest.mark.parametrize("algorithm", ORDER_SIZES)
NIST_CURVES = {"P-256": "p256", "P-384": "p384"}
DIGEST_OF_SIZE = {32: hashes.SHA256(), 48: hashes.SHA384()}


def fitted(digest: bytes, size: int) -> bytes:
    """The leftmost bytes of a digest, or zeros in front, as the kernel wants it."""
    return digest[:size].rjust(size, b"\0")


def split(output: np.ndarray) -> tuple[int, int]:
    raw = output.tobytes()
    half = len(raw) // 2
    return int.from_bytes(raw[:half]), int.from_bytes(raw[half:])


def verify(key, digest: bytes, output: np.ndarray) -> None:
    algorithm = ec.ECDSA(utils.Prehashed(DIGEST_OF_SIZE[len(digest)]))
    public_key(key).verify(utils.encode_dss_signature(*split(output)), digest, algorithm)


def check(keys, digests, outcome) -> None:
    assert outcome.status.tolist() == [Status.OK] * len(keys)
    assert not outcome.redone.any(), "a lane failed its check and was redone in software"
    for key, digest, output in zip(keys, digests, outcome.outputs, strict=True):
        verify(key, digest, output)


# --- published vectors, with their nonces -----------------------------------------------------------------------------


def nist_vectors(algorithm):
    """(d, digest, k, r, s) of FIPS 186-3 SigGen."""
    size = ORDER_SIZES[algorithm]
    with_s = (r for r in nist_records("ECDSA/FIPS_186-3/SigGen.txt") if "k" in r)
    for record in with_s:
        curve, hash_name = record["section"].split(",")
        if NIST_CURVES.get(curve) != algorithm:
            continue
        digest = hashlib.new(hash_name.replace("-", ""), bytes.fromhex(record["Msg"])).digest()
        yield int(record["d"], 16), fitted(digest, size), *(int(record[f], 16) for f in ("k", "R", "S"))


def rfc6979_nonce(order: int, d: int, digest: bytes, hash_name: str) -> int:
    """RFC 6979, 3.2; both orders are whole bytes long."""
    size = (order.bit_length() + 7) // 8
    message = int.from_bytes(fitted(digest, size)) % order
    key = bytes(hashlib.new(hash_name).digest_size)
    value = b"\1" * len(key)
    for step in (b"\0", b"\1"):
        seed = value + step + d.to_bytes(size) + message.to_bytes(size)
        key = hmac.digest(key, seed, hash_name)
        value = hmac.digest(key, value, hash_name)
    while True:
        stream = b""
        while len(stream) < size:
            value = hmac.digest(key, value, hash_name)
            stream += value
        k = int.from_bytes(stream[:size])
        if 1 <= k < order:
            return k
        key = hmac.digest(key, value + b"\0", hash_name)
        value = hmac.digest(key, value, hash_name)


def rfc6979_vectors(algorithm):
    """(d, digest, k, r, s) from OpenSSL's file of the RFC's appendix."""
    text = (CRYPTOGRAPHY_VECTORS / "ECDSA/RFC6979/evppkey_ecdsa_rfc6979.txt").read_text()
    name = {"p256": "P-256", "p384": "P-384"}[algorithm]
    pem = text.split(f"PrivateKey={name}_PRIV\n")[1].split("\n\n")[0]
    private = load_pem_private_key(pem.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    d = private.private_numbers().private_value
    for block in text.split("\n\n"):
        fields = dict(line.split(" = ", 1) for line in block.splitlines() if " = " in line)
        if fields.get("Key") != f"{name}_PRIV" or "DigestSign" not in fields:
            continue
        hash_name = fields["DigestSign"].lower()
        digest = hashlib.new(hash_name, fields["Input"].strip('"').encode()).digest()
        r, s = utils.decode_dss_signature(bytes.fromhex(fields["Output"]))
        k = rfc6979_nonce(ORDERS[algorithm], d, digest, hash_name)
        yield d, fitted(digest, ORDER_SIZES[algorithm]), k, r, s


def sign_with_nonces(hooks, keys, digests, nonces, backend, size):
    hooks.known_nonces(rows([k.to_bytes(size) for k in nonces]))
    outcome = hooks.ecdsa_sign(keys, rows(digests), backend)
    hooks.known_nonces(None)
    assert outcome.status.tolist() == [Status.OK] * len(keys)
    assert not outcome.redone.any()
    return [split(o) for o in outcome.outputs]


@pytest.mark.slow(seconds=5)
@ALGORITHMS
@pytest.mark.parametrize("source", [nist_vectors, rfc6979_vectors])
def test_published_vectors_in_every_lane(source, algorithm, backend, faulty, load_in_hooks):
    size = ORDER_SIZES[algorithm]
    vectors = list(source(algorithm))
    assert len(vectors) >= 10, "the vectors have gone"
    keys = {d: load_in_hooks(ec.derive_private_key(d, CURVES[algorithm])) for d, *_ in vectors}
    for shift in range(8):
        turned = vectors[shift:] + vectors[:shift]
        for start in range(0, len(turned), 8):
            batch = turned[start : start + 8]
            got = sign_with_nonces(
                faulty, [keys[v[0]] for v in batch], [v[1] for v in batch], [v[2] for v in batch], backend, size
            )
            assert got == [v[3:] for v in batch]


# --- extreme scalars, against arithmetic in Python --------------------------------------------------------------------


def expected_signature(algorithm, d, digest, k):
    """r and s from the definition; the point k G from OpenSSL."""
    n = ORDERS[algorithm]
    r = ec.derive_private_key(k, CURVES[algorithm]).public_key().public_numbers().x % n
    return r, pow(k, -1, n) * (int.from_bytes(digest) + r * d) % n


@pytest.mark.slow(seconds=5)
@ALGORITHMS
def test_extreme_scalars_and_digests(algorithm, backend, faulty, load_in_hooks):
    n, size = ORDERS[algorithm], ORDER_SIZES[algorithm]
    bits = 8 * size
    scalars = [1, 2, 3, n - 1, n - 2, (n - 1) // 2, (n + 1) // 2, 1 << (bits - 2), (1 << (bits - 1)) - 1, 1 << 52]
    scalars += [1 << 64, (1 << 104) - 1, n - (1 << 64), 0x5555 << (bits - 20), 2**128, 15, 16, 17, 31, 32, 33, 63, 64]
    digests = [0, 1, n - 1, n, n + 1, (1 << bits) - 1, 1 << (bits - 1)]
    keys = {d: load_in_hooks(ec.derive_private_key(d, CURVES[algorithm])) for d in scalars}
    cases = [
        (d, digests[(i + j) % len(digests)].to_bytes(size), k)
        for i, d in enumerate(scalars)
        for j, k in enumerate(scalars)
    ]
    for start in range(0, len(cases), 8):
        batch = cases[start : start + 8]
        got = sign_with_nonces(faulty, [keys[d] for d, _, _ in batch], [e for _, e, _ in batch],
                               [k for _, _, k in batch], backend, size)  # fmt: skip
        assert got == [expected_signature(algorithm, *case) for case in batch]


@pytest.mark.slow(seconds=8)
@ALGORITHMS
def test_random_scalars(algorithm, backend, faulty, load_in_hooks):
    n, size = ORDERS[algorithm], ORDER_SIZES[algorithm]
    scalar = st.integers(1, n - 1)
    digest = st.binary(min_size=size, max_size=size)

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(scalar, digest, scalar), min_size=1, max_size=8))
    def run(cases):
        keys = [load_in_hooks(ec.derive_private_key(d, CURVES[algorithm])) for d, _, _ in cases]
        got = sign_with_nonces(faulty, keys, [e for _, e, _ in cases], [k for _, _, k in cases], backend, size)
        assert got == [expected_signature(algorithm, *case) for case in cases]

    run()


# --- with the backend's own nonces ------------------------------------------------------------------------------------


@ALGORITHMS
@pytest.mark.parametrize("count", range(1, 9))
def test_partial_batches_of_different_keys(algorithm, count, backend, pool):
    keys = pool(algorithm)[:count]
    digests = [hashlib.sha512(bytes([i])).digest()[: ORDER_SIZES[algorithm]] for i in range(count)]
    check(keys, digests, ecdsa_sign(keys, rows(digests), backend))


@ALGORITHMS
def test_same_key_and_digest_never_share_a_nonce(algorithm, backend, pool):
    """Equal r would mean equal k, and two signatures of different digests with it give the key away."""
    key = pool(algorithm)[0]
    digests = [bytes(ORDER_SIZES[algorithm])] * 64
    outcome = ecdsa_sign(key, rows(digests), backend)
    check([key] * 64, digests, outcome)
    assert len({split(o)[0] for o in outcome.outputs}) == 64


@ALGORITHMS
def test_digest_zero(algorithm, backend, pool):
    keys, digests = pool(algorithm), [bytes(ORDER_SIZES[algorithm])] * 8
    check(keys, digests, ecdsa_sign(keys, rows(digests), backend))


@ALGORITHMS
def test_a_changed_bit_is_noticed_by_the_oracle(algorithm, backend, pool):
    """The oracle itself: otherwise none of the above says anything."""
    digest = bytes(range(ORDER_SIZES[algorithm]))
    output = ecdsa_sign(pool(algorithm)[:1], rows([digest]), backend).outputs[0]
    output[-1] ^= 1
    with pytest.raises(InvalidSignature):
        verify(pool(algorithm)[0], digest, output)


@ALGORITHMS
def test_wrong_size_is_refused_and_nothing_is_written(algorithm, backend, pool):
    size = ORDER_SIZES[algorithm]
    outputs = np.full((2, 2 * size), 0xA5, np.uint8)
    for wrong in (size - 1, size + 1, 64, 20):
        outcome = ecdsa_sign(pool(algorithm)[:2], np.zeros((2, wrong), np.uint8), backend, outputs)
        assert outcome.status.tolist() == [Status.BAD_SIZE] * 2
        assert (outputs == 0xA5).all()


def test_keys_of_the_other_curve_are_refused_lane_by_lane(any_backend, pool):
    skip_without_kernel(any_backend, "p256")
    keys = [pool("p256")[0], pool("p384")[0], pool("p256")[1], pool("ed25519")[0]]
    outcome = ecdsa_sign(keys, np.ones((4, 32), np.uint8), any_backend)
    assert outcome.status.tolist() == [Status.OK, Status.BAD_KEY, Status.OK, Status.BAD_KEY]
    assert not outcome.outputs[[1, 3]].any()
    for lane in (0, 2):
        verify(keys[lane], b"\1" * 32, outcome.outputs[lane])


@pytest.mark.long
@pytest.mark.timeout(1800)
@ALGORITHMS
def test_random_digests_for_long(algorithm, backend, pool):
    import secrets

    for _ in range(2000):
        digests = [secrets.token_bytes(ORDER_SIZES[algorithm]) for _ in range(8)]
        check(pool(algorithm), digests, ecdsa_sign(pool(algorithm), rows(digests), backend))
