"""SVIDs that pass the rules of the specification, and requests that are refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from control.ca.authority import AUTHORITY_LIFETIME, Authority, UnusableAuthority, from_pem, generate
from control.ca.issue import MAX_REQUEST_BYTES, RefusedRequest, issue, key_of_request, svid_problems
from deploy.node.certificates import unsigned

NOW = datetime.now(UTC).replace(microsecond=0)
ID = "spiffe://shop.example/workload/cart"
DAY = timedelta(days=1)
DER = serialization.Encoding.DER
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def request(key: Key, *names: str) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        uris = [x509.UniformResourceIdentifier(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(uris), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(DER)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return generate("shop.example", NOW)


KEYS: dict[str, Key] = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "rsa2048": rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_request_becomes_an_svid(authority: Authority, kind: str) -> None:
    key = key_of_request(request(KEYS[kind], ID), ID)
    svid = issue(authority, key, ID, DAY, NOW)
    assert list(svid_problems(svid.certificate)) == []
    svid.certificate.verify_directly_issued_by(authority.certificate)
    assert svid.not_after == NOW + DAY
    assert NOW < svid.half_life < svid.not_after
    assert svid.certificate.subject == x509.Name([])
    assert svid.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def test_openssl_agrees(authority: Authority, tmp_path: Path) -> None:
    svid = issue(authority, KEYS["p256"].public_key(), ID, DAY, NOW)
    (tmp_path / "ca.pem").write_text(authority.certificate_pem)
    (tmp_path / "leaf.pem").write_text(svid.chain_pem)
    for purpose in ("sslserver", "sslclient"):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "leaf.pem"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_certificate_outlives_its_ca(authority: Authority) -> None:
    end = NOW + AUTHORITY_LIFETIME
    assert issue(authority, KEYS["p256"].public_key(), ID, DAY, end - timedelta(hours=1)).not_after == end
    with pytest.raises(RefusedRequest, match="the CA cannot sign: the certificate expired on"):
        issue(authority, KEYS["p256"].public_key(), ID, DAY, end)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: b"", "not a certificate request"),
        (lambda: b"\x30\x03\x02\x01\x00", "not a certificate request"),
        (lambda: b"x" * (MAX_REQUEST_BYTES + 1), "at most"),
        (lambda: request(KEYS["p256"], "spiffe://shop.example/workload/other"), "workload/other, not spiffe"),
        (lambda: request(KEYS["p256"], ID, "spiffe://a/b"), ", not spiffe"),
        (lambda: request(rsa.generate_private_key(65537, 1024)), "this one has 1024"),  # noqa: S505 (refused here)
        (lambda: request(ec.generate_private_key(ec.SECP256K1())), "on P-256 or P-384, not on secp256k1"),
    ],
)
def test_requests_that_are_refused(made: Callable[[], bytes], says: str) -> None:
    with pytest.raises(RefusedRequest, match=says):
        key_of_request(made(), ID)


def test_the_requester_has_to_have_the_key() -> None:
    good = bytearray(request(KEYS["p256"]))
    good[-1] ^= 1
    with pytest.raises(RefusedRequest, match=r"does not have the private key|not a certificate request"):
        key_of_request(bytes(good), ID)


def test_only_spiffe_ids_are_issued(authority: Authority) -> None:
    with pytest.raises(RefusedRequest, match="is not a SPIFFE id"):
        issue(authority, KEYS["p256"].public_key(), "https://shop.example/", DAY, NOW)


def test_what_is_no_svid_is_told(authority: Authority) -> None:
    assert sorted(svid_problems(authority.certificate)) == [
        "it is a CA certificate (section 4.1)",
        "its key may sign certificates (section 4.3)",
        "its key usage lacks digitalSignature (section 4.3)",
        "the SPIFFE id of a leaf has a path (section 4.1)",
    ]
    nobody = x509.Name([])
    bare = unsigned(nobody, nobody, KEYS["p256"].public_key(), is_ca=None).sign(KEYS["p256"], hashes.SHA256())
    assert list(svid_problems(bare)) == [
        "it has 0 URI names, not one (section 2)",
        "it has no key usage (section 4.3)",
    ]


# --- authorities ------------------------------------------------------------------------------------------------------


def test_an_authority_survives_its_pem(authority: Authority) -> None:
    again = from_pem(*authority.to_pem(), "here", NOW)
    assert again.fingerprint == authority.fingerprint
    assert "key" not in repr(again)


def test_authorities_that_cannot_be_used(authority: Authority) -> None:
    certificate, key = authority.to_pem()
    other = generate("x.example", NOW).to_pem()[1]
    leaf = issue(authority, authority.key.public_key(), ID, DAY, NOW).chain_pem
    for pem, key_pem, when, says in (
        ("x", key, NOW, "here: not a certificate and an unencrypted key"),
        (certificate, "x", NOW, "here: not a certificate and an unencrypted key"),
        (leaf, key, NOW, "here: the certificate is not a CA certificate"),
        (certificate, other, NOW, "here: the key does not belong to the certificate"),
        (certificate, key, NOW + 2 * AUTHORITY_LIFETIME, "here: the certificate expired on"),
    ):
        with pytest.raises(UnusableAuthority, match=says):
            from_pem(pem, key_pem, "here", when)
