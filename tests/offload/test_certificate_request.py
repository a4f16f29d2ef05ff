"""Certificate requests made natively: read by `cryptography` and by OpenSSL, for every type of key."""

from __future__ import annotations

import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from offload._dataplane import Key

SPIFFE = "spiffe://mesh.test/ns/shop/sa/cart"
ALGORITHMS = ("p256", "p384", "ed25519", "rsa2048", "rsa3072", "rsa4096")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_request(algorithm: str) -> None:
    key = Key.generate(algorithm)
    der = key.certificate_request([SPIFFE], ["cart.test", "*.cart.test"])
    request = x509.load_der_x509_csr(der)
    assert request.is_signature_valid
    public = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public == key.public_key_der
    assert not list(request.subject)
    extension = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert extension.critical, "the subject is empty"
    assert extension.value.get_values_for_type(x509.UniformResourceIdentifier) == [SPIFFE]
    assert extension.value.get_values_for_type(x509.DNSName) == ["cart.test", "*.cart.test"]
    checked = subprocess.run(
        ["openssl", "req", "-inform", "DER", "-verify", "-noout", "-text"], input=der, capture_output=True, check=True
    )
    assert b"verify OK" in checked.stderr + checked.stdout
    assert SPIFFE.encode() in checked.stdout


def test_only_names_of_one_kind() -> None:
    key = Key.generate("p256")
    for uris, names in (([SPIFFE], []), ([], ["a.test"])):
        request = x509.load_der_x509_csr(key.certificate_request(uris, names))
        found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert found.get_values_for_type(x509.UniformResourceIdentifier) == uris
        assert found.get_values_for_type(x509.DNSName) == names


@pytest.mark.parametrize(
    ("uris", "names", "reason"),
    [
        ([], [], "at least one name"),
        ([""], [], "a name is empty"),
        (["spiffe://a/b c"], [], "not printable ASCII"),
        ([], ["bücher.test"], "not printable ASCII"),
        (["spiffe://a/" + "x" * 40000], [], "larger than 32 KiB"),
        (["spiffe://a/\0b"], [], "null byte"),
    ],
)
def test_names_that_cannot_be_asked_for(uris: list[str], names: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Key.generate("p256").certificate_request(uris, names)


def test_signatures_differ_between_requests() -> None:
    key = Key.generate("p256")
    assert key.certificate_request([SPIFFE], []) != key.certificate_request([SPIFFE], []), "hedged nonces"
