"""Private keys: what is taken, what is refused and with which reason."""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import ALGORITHMS, InvalidKey, Key, Scheme, sign_messages

from .conftest import CRYPTOGRAPHY_VECTORS, public_key, rsa_key

PLAIN = NoEncryption()
PKCS8, TRADITIONAL = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL


@pytest.fixture(scope="module")
def privates():
    return {
        "rsa2048": rsa.generate_private_key(65537, 2048),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
    }


FORMATS = [(name, form) for name in ("rsa2048", "p256", "p384") for form in (PKCS8, TRADITIONAL)] + [("ed25519", PKCS8)]


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize(("name", "form"), FORMATS)
def test_every_format_is_read(name, form, encoding, privates, load):
    private = privates[name]
    key = load.bytes(private.private_bytes(encoding, form, PLAIN))
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key.algorithm == name
    assert key.public_key_der == spki
    assert key.key_id == hashlib.sha256(spki).digest()
    assert key.key_id.hex()[:16] in repr(key)


@pytest.mark.slow(seconds=5)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_generated_keys_differ_and_say_what_they_are(algorithm, pool):
    keys = pool(algorithm)
    assert len({key.key_id for key in keys}) == len(keys)
    assert {key.algorithm for key in keys} == {algorithm}
    assert public_key(keys[0]).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == keys[0].public_key_der


def test_other_blocks_and_text_around_the_key(privates, load):
    """A chain and its key in one file; OpenSSL's habit of parameters before an EC key; comments; Windows line ends."""
    private = privates["p256"]
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    import datetime

    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), 1, now, now + datetime.timedelta(days=1))
        .sign(private, kernels_hash())
        .public_bytes(Encoding.PEM)
    )
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    pem = private.private_bytes(Encoding.PEM, TRADITIONAL, PLAIN)
    for text in (certificate + pem, pem + certificate, parameters + pem, b"a comment\n\n" + pem + b"\n\n"):
        for variant in (text, text.replace(b"\n", b"\r\n"), text.rstrip(b"\n")):
            assert load.bytes(variant).algorithm == "p256"


def kernels_hash():
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def refused(load, data: bytes, reason: str) -> None:
    with pytest.raises(InvalidKey, match=reason) as caught:
        load.bytes(data)
    assert str(load.folder) in str(caught.value), "the message names the file"


def test_encrypted_keys_are_refused(privates, load):
    encryption = BestAvailableEncryption(b"password")
    for form in (PKCS8, TRADITIONAL):
        refused(load, privates["p256"].private_bytes(Encoding.PEM, form, encryption), "encrypted")
    refused(load, privates["p256"].private_bytes(Encoding.DER, PKCS8, encryption), "neither PEM nor DER")


def test_things_that_are_no_private_key(privates, load):
    public = privates["p256"].public_key()
    refused(load, b"", "empty")
    refused(load, b"\n", "neither PEM nor DER")
    refused(load, os.urandom(1000), "neither PEM nor DER")
    refused(load, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 'only "PUBLIC KEY"')
    refused(load, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), "neither PEM nor DER")
    refused(load, b"x" * 65537, "larger than 64 KiB")
    openssh = privates["p256"].private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, PLAIN)
    refused(load, openssh, 'only "OPENSSH PRIVATE KEY"')


def test_two_keys_in_one_file(privates, load):
    pem = privates["p256"].private_bytes(Encoding.PEM, PKCS8, PLAIN)
    refused(load, pem + privates["p384"].private_bytes(Encoding.PEM, PKCS8, PLAIN), "more than one private key")


def test_malformed_pem(privates, load):
    pem = privates["p256"].private_bytes(Encoding.PEM, PKCS8, PLAIN)
    refused(load, pem[: len(pem) // 2], "malformed or cut off")
    refused(load, pem.replace(b"END PRIVATE", b"END PUBLIC"), "malformed or cut off")
    refused(load, b"-----BEGIN PRIVATE", "malformed or cut off")
    body = pem.split(b"\n")[1]
    refused(load, pem.replace(body, body[:-1]), "base64")
    refused(load, pem.replace(body, b"!" + body[1:]), "base64")
    refused(load, pem.replace(body, body[:10] + b"=" + body[11:]), "base64")
    refused(load, pem.replace(body, b"\xff" + body[1:]), "base64")


@pytest.mark.parametrize(("name", "form"), FORMATS)
def test_truncated_and_extended_der(name, form, privates, load):
    der = privates[name].private_bytes(Encoding.DER, form, PLAIN)
    label = {PKCS8: "PRIVATE KEY", TRADITIONAL: "RSA PRIVATE KEY" if "rsa" in name else "EC PRIVATE KEY"}[form]
    for length in {0, 1, 2, 10, len(der) // 2, len(der) - 1}:
        refused(load, pem_of(label, der[:length]), "not a usable|base64")
    refused(load, pem_of(label, der + b"\0"), "bytes follow")


def pem_of(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


@pytest.mark.slow(seconds=2)
def test_curves_and_types_that_are_not_served(load):
    refused(load, ec.generate_private_key(ec.SECP521R1()).private_bytes(Encoding.PEM, PKCS8, PLAIN), "not served")
    refused(load, ec.generate_private_key(ec.SECP256K1()).private_bytes(Encoding.PEM, PKCS8, PLAIN), "not a usable")
    refused(load, x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PKCS8, PLAIN), "not served")
    refused(load, dsa.generate_private_key(2048).private_bytes(Encoding.PEM, PKCS8, PLAIN), "not served|not a usable")


@pytest.mark.parametrize("bits", [1024, 1536, 2040, 2056])
def test_rsa_sizes_that_are_not_served(bits, load):
    private = rsa.generate_private_key(65537, bits)
    refused(load, private.private_bytes(Encoding.PEM, PKCS8, PLAIN), f"RSA key of {bits} bits; 2048, 3072 and 4096")


def rsa_der(*numbers: int) -> bytes:
    """PKCS#1 with whatever numbers: version, n, e, d, p, q, dp, dq, qinv."""

    def tlv(tag: int, body: bytes) -> bytes:
        size = len(body)
        forms = [bytes([size % 256]), b"\x81" + bytes([size % 256]), b"\x82" + size.to_bytes(2)]
        return bytes([tag]) + forms[(size > 127) + (size > 255)] + body

    return tlv(0x30, b"".join(tlv(2, n.to_bytes(n.bit_length() // 8 + 1)) for n in numbers))


def test_rsa_keys_whose_parts_do_not_belong_together(privates, load):
    x = privates["rsa2048"].private_numbers()
    n, e = x.public_numbers.n, x.public_numbers.e
    good = [0, n, e, x.d, x.p, x.q, x.dmp1, x.dmq1, x.iqmp]
    assert load.bytes(rsa_der(*good)).algorithm == "rsa2048"
    for index in range(9):
        for change in (1, 2):
            numbers = [*good[:index], good[index] + change, *good[index + 1 :]]
            refused(load, rsa_der(*numbers), "not a usable PKCS#1|does not work")
    refused(load, rsa_der(*good[:4], x.q, x.p, *good[6:]), "not a usable PKCS#1")
    for exponent in (0, 1, 2, 65536, 2**34 + 1, n - 2):
        refused(load, rsa_der(0, n, exponent, *good[3:]), "not a usable PKCS#1")


def test_rsa_key_of_numbers_that_are_no_primes(load):
    """p q = n and all exponents fit each other, but p is not prime: found by trying it."""
    q = rsa.generate_private_key(65537, 2048).private_numbers().q
    p = 3 << 1022 | 3  # a multiple of 3
    while (p - 1) % 65537 == 0 or p * q >> 2047 != 1:
        p += 6
    d, dp, dq = (pow(65537, -1, modulus) for modulus in ((p - 1) * (q - 1), p - 1, q - 1))
    refused(load, rsa_der(0, p * q, 65537, d, p, q, dp, dq, pow(q, -1, p)), "does not work")


def test_unbalanced_primes_are_refused(load):
    a = rsa.generate_private_key(65537, 1536).private_numbers().p  # noqa: S505 (wanted: a prime of 768 bits)
    b = rsa.generate_private_key(65537, 2560).private_numbers().p  # 1280 bits
    phi = (a - 1) * (b - 1)
    n = a * b
    assert n.bit_length() == 2048
    private = rsa_key(n, 65537, pow(65537, -1, phi), (b, a))
    refused(load, private.private_bytes(Encoding.DER, PKCS8, PLAIN), "half as long")


def test_ec_key_with_somebody_elses_public_half(privates, load):
    der = privates["p256"].private_bytes(Encoding.DER, TRADITIONAL, PLAIN)
    own = privates["p256"].public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    changed = der.replace(own, other.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
    assert changed != der
    refused(load, pem_of("EC PRIVATE KEY", changed), "not a usable SEC1|do not belong together")
    off_curve = der.replace(own, own[:-1] + bytes([own[-1] ^ 1]))
    refused(load, pem_of("EC PRIVATE KEY", off_curve), "not a usable SEC1")


@pytest.mark.parametrize("scalar", [0, 2**256 - 1, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551])
def test_ec_scalar_out_of_range(scalar, privates, load):
    der = privates["p256"].private_bytes(Encoding.DER, TRADITIONAL, PLAIN)
    own = privates["p256"].private_numbers().private_value.to_bytes(32)
    refused(load, pem_of("EC PRIVATE KEY", der.replace(own, scalar.to_bytes(32))), "not a usable SEC1")


def test_files_that_cannot_be_read(tmp_path):
    for path, reason in [
        (tmp_path / "missing.pem", "missing.pem: cannot be opened: No such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("", "cannot be opened"),
    ]:
        if str(path).endswith("pipe"):
            os.mkfifo(path)
        with pytest.raises(InvalidKey, match=reason):
            Key.load(path)


def test_handles_are_made_by_load_and_generate_alone(pool):
    with pytest.raises(TypeError, match=r"use Key.load or Key.generate"):
        Key()
    with pytest.raises(TypeError, match=r"use Key.load or Key.generate"):
        _ = Key.__new__(Key).algorithm
    with pytest.raises(ValueError, match="unknown algorithm 'rsa1024'"):
        Key.generate("rsa1024")
    with pytest.raises(TypeError, match="does not leave its process"):
        pickle.dumps(pool("p256")[0])


def test_errors_hold_no_key_material(privates, load):
    x = privates["rsa2048"].private_numbers()
    with pytest.raises(InvalidKey) as caught:
        load.bytes(rsa_der(0, x.public_numbers.n, 65537, x.d + 2, x.p, x.q, x.dmp1, x.dmq1, x.iqmp))
    text = str(caught.value).lower()
    assert hex(x.p)[2:18] not in text
    assert str(x.d)[:16] not in text


@pytest.mark.slow(seconds=9)
def test_garbage_is_refused_or_works(load, privates):
    """Whatever bytes change in a key file, the answer is a refusal or a key that signs; never a crash."""
    sources = [
        privates[name].private_bytes(encoding, form, PLAIN)
        for name, form in FORMATS
        for encoding in (Encoding.PEM, Encoding.DER)
    ]
    change = st.tuples(st.integers(0, 2**16), st.integers(0, 255))

    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.sampled_from(sources), st.lists(change, max_size=4), st.integers(0, 300))
    def run(source, changes, cut):
        data = bytearray(source[: -cut - 1] if cut < len(source) // 2 else source)
        for position, value in changes:
            data[position % len(data)] = value
        try:
            key = load.bytes(bytes(data))
        except InvalidKey:
            return
        schemes = {"p256": Scheme.ECDSA_P256_SHA256, "p384": Scheme.ECDSA_P384_SHA384, "ed25519": Scheme.ED25519}
        result = sign_messages(schemes.get(key.algorithm, Scheme.RSA_PSS_SHA256), key, [b"x"])
        assert result.status.tolist() == [0]

    run()


@pytest.mark.slow(seconds=4)
def test_a_key_is_shared_by_threads(pool):
    keys = [pool(algorithm)[0] for algorithm in ("rsa2048", "p256", "ed25519")]
    schemes = [Scheme.RSA_PKCS1_SHA256, Scheme.ECDSA_P256_SHA256, Scheme.ED25519]
    bad: list[object] = []

    def work() -> None:
        for _ in range(20):
            for key, scheme in zip(keys, schemes, strict=True):
                result = sign_messages(scheme, key, [b"m"] * 8)
                if result.status.any() or result.redone.any():
                    bad.append(result)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not bad


SERVED_PKCS8 = dict.fromkeys(
    ["ec-consistent-curve.pem", "ec_private_key.pem", "ecc_private_with_rfc5915_ext.pem"], "p256"
)


@pytest.mark.parametrize("path", sorted(p.name for p in (CRYPTOGRAPHY_VECTORS / "PKCS8").iterdir()))
def test_pkcs8_files_of_others(path, load):
    """Odd files collected by the cryptography project: each is a served key or refused with a reason."""
    data = (CRYPTOGRAPHY_VECTORS / "PKCS8" / path).read_bytes()
    if path in SERVED_PKCS8:
        assert load.bytes(data).algorithm == SERVED_PKCS8[path]
    else:
        refused(load, data, r": [A-Za-z#0-9 ]{10,}")
