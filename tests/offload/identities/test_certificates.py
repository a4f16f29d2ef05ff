"""Certificate chains: order, dates, what is known of them."""

from __future__ import annotations

import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from offload.identities.certificates import CertificateError, read_authorities, read_chain
from tests.offload.key_files import DAY, NOW, Authority, build_certificate, shared_key

_KEY = shared_key("p256")


def test_chain_of_three(authority: Authority) -> None:
    intermediate = Authority.make("intermediate", authority)
    leaf = intermediate.issue(_KEY)
    ders = [c.public_bytes(Encoding.DER) for c in (leaf, intermediate.certificate, authority.certificate)]
    chain = read_chain(ders, NOW)
    assert chain.der == tuple(ders)
    assert chain.subject == "CN=www"
    with pytest.raises(CertificateError, match=r"certificate 1 .* was not issued by certificate 2"):
        read_chain([ders[0], ders[2]], NOW)
    with pytest.raises(CertificateError, match="no certificate"):
        read_chain([], NOW)


def test_a_clock_that_is_a_little_behind_is_forgiven(authority: Authority) -> None:
    leaf = authority.issue(_KEY, begin=datetime.timedelta(minutes=4)).public_bytes(Encoding.DER)
    assert read_chain([leaf], NOW).subject == "CN=www"


def test_the_chain_ends_when_its_first_certificate_does(authority: Authority) -> None:
    intermediate_key = shared_key("p256", 2)
    intermediate = build_certificate(
        "short", intermediate_key, authority.key, authority.certificate.subject, end=5 * DAY, ca=True
    )
    assert isinstance(intermediate_key, ec.EllipticCurvePrivateKey)
    leaf = build_certificate("www", _KEY, intermediate_key, intermediate.subject, end=50 * DAY)
    chain = read_chain([c.public_bytes(Encoding.DER) for c in (leaf, intermediate)], NOW)
    assert chain.chain_not_after == int((NOW + 5 * DAY).timestamp())
    assert chain.not_after == int((NOW + 50 * DAY).timestamp())


def test_authorities(authority: Authority) -> None:
    der = authority.certificate.public_bytes(Encoding.DER)
    assert read_authorities([der, der]) == (der,)
    with pytest.raises(CertificateError, match="no certificate"):
        read_authorities([])
