"""The encodings between TLS and the kernels, against third-party vectors."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import utils
from hypothesis import given
from hypothesis import strategies as st

from .conftest import wycheproof

HASHES = {"SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}

PSS_FILES = [
    "rsa_pss_2048_sha256_mgf1_32_test.json",
    "rsa_pss_2048_sha384_mgf1_48_test.json",
    "rsa_pss_3072_sha256_mgf1_32_test.json",
    "rsa_pss_4096_sha256_mgf1_32_test.json",
    "rsa_pss_4096_sha384_mgf1_48_test.json",
    "rsa_pss_4096_sha512_mgf1_64_test.json",
]


def mgf1(seed: bytes, length: int, hash_name: str) -> bytes:
    stream = b""
    while len(stream) < length:
        stream += hashlib.new(
            hash_name, seed + (len(stream) // hashlib.new(hash_name).digest_size).to_bytes(4)
        ).digest()
    return stream[:length]


def pss_salt(block: bytes, hash_name: str) -> bytes:
    """The salt inside a valid encoded block (RFC 8017, 9.1.2)."""
    size = hashlib.new(hash_name).digest_size
    masked, h = block[: -size - 1], block[-size - 1 : -1]
    return bytes(a ^ b for a, b in zip(masked, mgf1(h, len(masked), hash_name), strict=True))[-size:]


@pytest.mark.parametrize("name", PSS_FILES)
def test_pss_block_is_the_one_inside_valid_signatures(name, hooks):
    compared = 0
    for group in wycheproof(name)["testGroups"]:
        n = int(group["publicKey"]["modulus"], 16)
        e = int(group["publicKey"]["publicExponent"], 16)
        hash_name, size = HASHES[group["sha"]], group["keySize"] // 8
        for test in group["tests"]:
            signature = int(test["sig"] or "0", 16)
            if test["result"] != "valid" or signature >= n:
                continue
            block = pow(signature, e, n).to_bytes(size)
            digest = hashlib.new(hash_name, bytes.fromhex(test["msg"])).digest()
            assert hooks.pss_block(hash_name, digest, pss_salt(block, hash_name), size) == block
            compared += 1
    assert compared >= 5, "the vectors have gone"


@pytest.mark.parametrize("size", [2048, 3072, 4096])
def test_pkcs1_block_is_the_one_inside_signatures(size, hooks):
    compared = 0
    for group in wycheproof(f"rsa_pkcs1_{size}_sig_gen_test.json")["testGroups"]:
        if group["sha"] not in HASHES or group["keySize"] != size:
            continue
        n = int(group["privateKey"]["modulus"], 16)
        e = int(group["privateKey"]["publicExponent"], 16)
        for test in group["tests"]:
            digest = hashlib.new(HASHES[group["sha"]], bytes.fromhex(test["msg"])).digest()
            block = pow(int(test["sig"], 16), e, n).to_bytes(size // 8)
            assert hooks.pkcs1_block(HASHES[group["sha"]], digest, size // 8) == block
            compared += 1
    assert compared >= 5, "the vectors have gone"


@pytest.mark.parametrize(("curve", "half"), [("secp256r1_sha256", 32), ("secp384r1_sha384", 48)])
def test_ecdsa_der_is_that_of_valid_signatures(curve, half, hooks):
    compared = 0
    for group in wycheproof(f"ecdsa_{curve}_test.json")["testGroups"]:
        for test in group["tests"]:
            if test["result"] == "valid":
                r, s = utils.decode_dss_signature(bytes.fromhex(test["sig"]))
                assert hooks.ecdsa_der(r.to_bytes(half) + s.to_bytes(half)).hex() == test["sig"]
                compared += 1
    assert compared >= 50, "the vectors have gone"


@pytest.mark.parametrize("half", [32, 48])
def test_ecdsa_der_is_minimal(half, hooks):
    number = st.one_of(
        st.integers(0, 256**half - 1), st.integers(0, 8 * half - 1).map(lambda b: 1 << b), st.integers(0, 300)
    )

    @given(number, number)
    def run(r, s):
        assert hooks.ecdsa_der(r.to_bytes(half) + s.to_bytes(half)) == utils.encode_dss_signature(r, s)

    run()
