"""A CA whose certificates have all that scanners ask for, so that what they find is of the socket."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploy.node.certificates import named, unsigned
from tests.offload.key_files import PrivateKey

DAYS = 90


def _usage(**used: bool) -> x509.KeyUsage:
    names: tuple[str, ...]
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    names += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: used.get(name, False) for name in names})


def _builder(
    subject: str, issuer: str, key: PrivateKey, issuer_key: PrivateKey, names: Sequence[x509.GeneralName] = ()
) -> x509.CertificateBuilder:
    """A CA's certificate if it has no names."""
    is_ca = not names
    return (
        unsigned(
            named(subject),
            named(issuer),
            key.public_key(),
            ends=datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=DAYS),
            is_ca=is_ca,
            path_length=0 if is_ca else None,
            names=names,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


@dataclass(frozen=True)
class Authority:
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @staticmethod
    def make() -> Authority:
        name, key = "conformance CA", ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(name, name, key, key)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return Authority(name, key, certificate)

    def issue(self, key: PrivateKey, name: x509.GeneralName) -> x509.Certificate:
        """For servers and clients; RSA keys may also be used for RSA key exchange."""
        return (
            _builder("conformance", self.name, key, self.key, [name])
            .add_extension(
                _usage(digital_signature=True, key_encipherment=isinstance(key, rsa.RSAPrivateKey)), critical=True
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
