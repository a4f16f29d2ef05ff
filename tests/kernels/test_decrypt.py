"""RSA decryption for TLS 1.2: 48 bytes or, deliberately indistinguishable, other 48 bytes."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import SignStatus, decrypt, sign_messages

from .conftest import RSA_SIZES, rsa_numbers, skip_without_kernel, wycheproof

ALGORITHMS = pytest.mark.parametrize("algorithm", RSA_SIZES)
PREMASTER = bytes([3, 3]) + bytes(range(46))


def encrypt_block(key, block: bytes) -> bytes:
    """Bare RSA with the public key: any block can be sent to us."""
    numbers = rsa_numbers(key)
    return pow(int.from_bytes(block), numbers.e, numbers.n).to_bytes(len(block))


def padded(size: int, message: bytes, filler: bytes | None = None) -> bytes:
    length = size - 3 - len(message)
    return b"\0\2" + (filler or bytes(1 + i % 255 for i in range(length))) + b"\0" + message


def wrong_blocks(size: int) -> dict[str, bytes]:
    good = padded(size, PREMASTER)
    return {
        "first byte": b"\1" + good[1:],
        "block type 1": b"\0\1" + good[2:],
        "block type 3": b"\0\3" + good[2:],
        "zero early": good[:2] + b"\0" + good[3:],
        "zero in the eighth": good[:9] + b"\0" + good[10:],
        "zero last in the filler": good[: size - 50] + b"\0" + good[size - 49 :],
        "no separator": good[: size - 49] + b"\1" + good[size - 48 :],
        "47 bytes": padded(size, PREMASTER[1:] and bytes(range(1, 48))),
        "49 bytes": padded(size, bytes(range(1, 50))),
        "nothing": padded(size, b""),
        "all": b"\0\2" + b"\1" * (size - 2),
        "zeros": bytes(size),
    }


@ALGORITHMS
def test_good_premasters_in_every_lane(algorithm, backend, pool):
    keys = (pool(algorithm) * 2)[:8]
    size = RSA_SIZES[algorithm]
    messages = [bytes([3, 3]) + secrets.token_bytes(46) for _ in keys]
    outcome = decrypt(keys, [encrypt_block(k, padded(size, m)) for k, m in zip(keys, messages, strict=True)], backend)
    assert outcome.status.tolist() == [SignStatus.OK] * 8
    assert [o.tobytes() for o in outcome.outputs] == messages


@ALGORITHMS
def test_wrong_padding_is_no_error_and_gives_nothing_away(algorithm, backend, pool):
    key, other = pool(algorithm)[:2]
    size = RSA_SIZES[algorithm]
    ciphertexts = [encrypt_block(key, block) for block in wrong_blocks(size).values()]
    first = decrypt(key, ciphertexts, backend)
    assert first.status.tolist() == [SignStatus.OK] * len(ciphertexts)
    outputs = [o.tobytes() for o in first.outputs]
    assert len(set(outputs)) == len(outputs)
    for block, output in zip(wrong_blocks(size).values(), outputs, strict=True):
        assert output not in block
        assert output[8:24] not in block
    # The same again and in software: the answer to a question asked twice may not differ ...
    assert [o.tobytes() for o in decrypt(key, ciphertexts, "software").outputs] == outputs
    # ... and another key's answers say nothing about it.
    again = decrypt(other, [c for c in ciphertexts if int.from_bytes(c) < rsa_numbers(other).n], backend)
    assert not set(outputs) & {o.tobytes() for o in again.outputs}


@ALGORITHMS
def test_sizes_and_range(algorithm, backend, pool):
    key, size = pool(algorithm)[0], RSA_SIZES[algorithm]
    n = rsa_numbers(key).n
    good = encrypt_block(key, padded(size, PREMASTER))
    inputs = [b"", good[1:], good + b"\0", n.to_bytes(size), b"\xff" * size, good]
    outcome = decrypt(key, inputs, backend)
    assert outcome.status.tolist() == [SignStatus.BAD_INPUT] * 5 + [SignStatus.OK]
    assert not outcome.outputs[:5].any()
    assert outcome.outputs[5].tobytes() == PREMASTER


def test_only_rsa_decrypts(any_backend, pool):
    for algorithm in ("p256", "p384", "ed25519"):
        skip_without_kernel(any_backend, algorithm)
        outcome = decrypt(pool(algorithm)[0], [bytes(64)], any_backend)
        assert outcome.status.tolist() == [SignStatus.BAD_SCHEME]
        assert not outcome.outputs.any()


@ALGORITHMS
def test_wycheproof(algorithm, backend, load):
    """Each valid message of 48 bytes comes out; nothing else of the file does, and nothing is an error of its own."""
    bits, seen = 8 * RSA_SIZES[algorithm], 0
    for group in wycheproof(f"rsa_pkcs1_{bits}_test.json")["testGroups"]:
        key = load.bytes(group["privateKeyPem"].encode())
        tests = [t for t in group["tests"] if len(t["ct"]) == bits // 4]
        outcome = decrypt(key, [bytes.fromhex(t["ct"]) for t in tests], backend)
        for test, status, output in zip(tests, outcome.status, outcome.outputs, strict=True):
            message = bytes.fromhex(test["msg"])
            if status == SignStatus.BAD_INPUT:
                assert int(test["ct"], 16) >= int(group["privateKey"]["modulus"], 16)
                continue
            assert status == SignStatus.OK
            assert (output.tobytes() == message) == (len(message) == 48 and test["result"] != "invalid")
            seen += 1
    assert seen >= 30, "the vectors have gone"


def test_unpadding_looks_at_every_byte(hooks):
    """Every single changed byte of the padding makes it another answer; of the message, that byte of the answer."""
    key = hooks.Key.generate("rsa2048")
    ciphertext, good = bytes(255) + b"\7", padded(256, PREMASTER)
    synthetic = hooks.unpad_premaster(key, ciphertext, bytes(256))
    assert hooks.unpad_premaster(key, ciphertext, good) == PREMASTER
    for position in range(208):
        block = bytearray(good)
        block[position] = 0 if position not in (0, 1, 207) else block[position] ^ 0x40
        if block != good:
            assert hooks.unpad_premaster(key, ciphertext, bytes(block)) == synthetic

    @settings(max_examples=300, deadline=None)
    @given(st.binary(min_size=256, max_size=256))
    def against_a_plain_reading(block):
        right = block[:2] == b"\0\2" and 0 not in block[2:207] and block[207] == 0
        got = hooks.unpad_premaster(key, ciphertext, block)
        assert got == (block[208:] if right else synthetic)

    against_a_plain_reading()


def test_signatures_and_decryptions_do_not_mix_up_memory(pool, any_backend):
    """A signature after a decryption, in the same thread and workspace, holds nothing of it."""
    skip_without_kernel(any_backend, "rsa2048")
    key = pool("rsa2048")[0]
    decrypt(key, [encrypt_block(key, padded(256, PREMASTER))] * 8, any_backend)
    result = sign_messages(0x0401, key, [b"x"] * 8, any_backend)
    assert len(set(result.as_bytes())) == 1
    assert PREMASTER not in np.ascontiguousarray(result.outputs).tobytes()
