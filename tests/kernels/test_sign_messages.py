"""TLS signatures from end to end of this layer: scheme and message in, what TLS carries out."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from kernels import InvalidKey, Scheme, SignStatus, decrypt, scheme_fits, sign_messages

from .conftest import RSA_SIZES, public_key, skip_without_kernel, wycheproof

SHA = {"SHA256": hashes.SHA256(), "SHA384": hashes.SHA384(), "SHA512": hashes.SHA512()}
FITTING = [(scheme, algorithm) for algorithm in RSA_SIZES for scheme in Scheme if scheme.name.startswith("RSA")]
FITTING += [(Scheme.ECDSA_P256_SHA256, "p256"), (Scheme.ECDSA_P384_SHA384, "p384"), (Scheme.ED25519, "ed25519")]
# TLS 1.2 names the hash alone.
ONLY_TLS12 = [(Scheme.ECDSA_P384_SHA384, "p256"), (Scheme.ECDSA_P256_SHA256, "p384")]
ONLY_TLS12 += [(Scheme.ECDSA_P521_SHA512, "p256"), (Scheme.ECDSA_P521_SHA512, "p384")]
MESSAGES = [b"", b"a", bytes(64) + b"TLS 1.3, server CertificateVerify", b"\xff" * 130, b"m" * 16384]


def verify(key, scheme, message, signature):
    public = public_key(key)
    if scheme == Scheme.ED25519:
        public.verify(signature, message)
        return
    sha = SHA[scheme.name[-6:]]
    if scheme.name.startswith("RSA_PSS"):
        public.verify(signature, message, padding.PSS(padding.MGF1(sha), sha.digest_size), sha)
    elif scheme.name.startswith("RSA_PKCS1"):
        public.verify(signature, message, padding.PKCS1v15(), sha)
    else:
        public.verify(signature, message, ec.ECDSA(sha))


@pytest.mark.slow(seconds=7)
@pytest.mark.parametrize(("scheme", "algorithm"), FITTING + ONLY_TLS12)
def test_every_scheme_verifies(scheme, algorithm, backend, pool):
    keys = (pool(algorithm) * 2)[: len(MESSAGES)]
    result = sign_messages(scheme, keys, MESSAGES, backend)
    assert result.status.tolist() == [SignStatus.OK] * len(MESSAGES)
    assert not result.redone.any()
    for key, message, signature in zip(keys, MESSAGES, result.as_bytes(), strict=True):
        verify(key, scheme, message, signature)


@pytest.mark.slow(seconds=8)
@pytest.mark.parametrize(("scheme", "algorithm"), [f for f in FITTING + ONLY_TLS12 if f[0] != Scheme.ED25519])
def test_prehashed_input_is_the_digest(scheme, algorithm, backend, pool):
    digests = [hashlib.new(scheme.name[-6:].lower(), message).digest() for message in MESSAGES]
    keys = (pool(algorithm) * 2)[: len(MESSAGES)]
    result = sign_messages(scheme, keys, digests, backend, prehashed=True)
    for key, message, signature in zip(keys, MESSAGES, result.as_bytes(), strict=True):
        verify(key, scheme, message, signature)


@pytest.mark.parametrize(("scheme", "algorithm"), FITTING)
def test_digest_of_a_wrong_size_is_refused(scheme, algorithm, backend, pool):
    keys = pool(algorithm)[:4]
    right = 0 if scheme == Scheme.ED25519 else SHA[scheme.name[-6:]].digest_size
    inputs = [b"", b"d" * 20, b"d" * (right + 1), b"d" * 64 if right != 64 else b"d" * 32]
    result = sign_messages(scheme, keys, inputs, backend, prehashed=True)
    assert result.status.tolist() == [SignStatus.BAD_INPUT] * 4
    assert not result.outputs.any()
    assert result.as_bytes() == [None] * 4


def test_schemes_that_do_not_fit_are_refused(any_backend, pool):
    families = {"rsa2048": "RSA", "p256": "ECDSA", "p384": "ECDSA", "ed25519": "ED25519"}
    for algorithm, family in families.items():
        for scheme in [*Scheme, 0, 0x0201, 0x0703, 0x0808, 0xFFFF]:
            fits = isinstance(scheme, Scheme) and scheme.name.startswith(family)
            result = sign_messages(scheme, pool(algorithm)[0], [b"message"], any_backend)
            assert result.status.tolist() == [SignStatus.OK if fits else SignStatus.BAD_SCHEME]
            assert result.outputs.any() == fits


def test_which_scheme_fits_which_key():
    algorithms = [*RSA_SIZES, "p256", "p384", "ed25519"]
    tls13 = {(s, a) for s in Scheme for a in algorithms if scheme_fits(s, a)}
    tls12 = {(s, a) for s in Scheme for a in algorithms if scheme_fits(s, a, tls12=True)}
    assert tls13 == set(FITTING)
    assert tls12 == set(FITTING + ONLY_TLS12)
    assert not scheme_fits(0x10804, "rsa2048")


@pytest.mark.slow(seconds=8)
def test_refused_operations_do_not_disturb_their_batch(any_backend, pool):
    """One batch: good, wrong key family, good."""
    skip_without_kernel(any_backend, "rsa2048")
    keys = [pool("rsa2048")[0], pool("p256")[0], pool("rsa2048")[1], pool("rsa3072")[0]]
    messages = [b"one", b"two", b"three", b"four"]
    result = sign_messages(Scheme.RSA_PSS_SHA256, keys, messages, any_backend)
    bad = SignStatus.BAD_SCHEME
    assert result.status.tolist() == [SignStatus.OK, bad, SignStatus.OK, bad]
    for lane in (0, 2):
        verify(keys[lane], Scheme.RSA_PSS_SHA256, messages[lane], result.as_bytes()[lane])


@pytest.mark.parametrize("algorithm", RSA_SIZES)
def test_wycheproof_pkcs1_signatures_in_every_lane(algorithm, backend, load):
    names = {"SHA-256": Scheme.RSA_PKCS1_SHA256, "SHA-384": Scheme.RSA_PKCS1_SHA384, "SHA-512": Scheme.RSA_PKCS1_SHA512}
    bits, compared = 8 * RSA_SIZES[algorithm], 0
    for group in wycheproof(f"rsa_pkcs1_{bits}_sig_gen_test.json")["testGroups"]:
        if group["sha"] not in names or group["keySize"] != bits:
            continue
        pem = group["privateKeyPem"].encode()
        if int(group["privateKey"]["publicExponent"], 16) == 3:
            # A constructed key whose primes are of very different lengths: refused, see key.h.
            with pytest.raises(InvalidKey, match="half as long"):
                load.bytes(pem)
            continue
        key = load.bytes(pem)
        messages = [bytes.fromhex(test["msg"]) for test in group["tests"]]
        wanted = [bytes.fromhex(test["sig"]) for test in group["tests"]]
        for shift in range(8):
            result = sign_messages(names[group["sha"]], key, messages[shift:] + messages[:shift], backend)
            assert result.as_bytes() == wanted[shift:] + wanted[:shift]
        compared += len(wanted)
    assert compared >= 5, "the vectors have gone"


@pytest.mark.parametrize("algorithm", RSA_SIZES)
def test_pss_salts_are_fresh(algorithm, backend, pool):
    result = sign_messages(Scheme.RSA_PSS_SHA256, pool(algorithm)[0], [b"same"] * 16, backend)
    assert len(set(result.as_bytes())) == 16


def test_bad_calls_are_errors_of_the_caller(pool):
    key = pool("p256")[0]
    with pytest.raises(ValueError, match="2 keys for 1 operations"):
        sign_messages(Scheme.ECDSA_P256_SHA256, [key, key], [b"x"])
    with pytest.raises(ValueError, match="no operations"):
        sign_messages(Scheme.ECDSA_P256_SHA256, key, [])
    with pytest.raises(ValueError, match="16 bits"):
        sign_messages(0x10403, key, [b"x"])
    with pytest.raises(ValueError, match="no backend 'quantum'"):
        sign_messages(Scheme.ECDSA_P256_SHA256, key, [b"x"], "quantum")
    with pytest.raises(TypeError, match="expected a Key, not bytes"):
        sign_messages(Scheme.ECDSA_P256_SHA256, [b"key"], [b"x"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="contiguous"):
        decrypt(pool("rsa2048")[0], np.zeros((4, 512), np.uint8)[:, ::2])
