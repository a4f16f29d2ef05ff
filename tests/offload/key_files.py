"""Certificates and key files, good ones and bad ones."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from deploy.node.certificates import named, unsigned, uri_names

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def make_key(algorithm: str) -> PrivateKey:
    if algorithm == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "p384":
        return ec.generate_private_key(ec.SECP384R1())
    if algorithm == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(algorithm.removeprefix("rsa")))


@functools.cache
def shared_key(algorithm: str, number: int = 0) -> PrivateKey:
    """The same key for the whole run: RSA keys take long to make."""
    del number
    return make_key(algorithm)


def key_pem(key: PrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def spki(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: PrivateKey) -> bytes:
    return sha256(spki(key)).digest()


def secret_forms(*private_keys: PrivateKey) -> list[bytes]:
    """The private numbers of the keys as bytes, in both byte orders, and the text of their files."""
    found: list[bytes] = []
    for key in private_keys:
        assert not isinstance(key, ed25519.Ed25519PrivateKey)
        numbers = key.private_numbers()
        if isinstance(numbers, rsa.RSAPrivateNumbers):
            secrets = [numbers.p, numbers.q, numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp]
        else:
            secrets = [numbers.private_value]
        for value in secrets:
            big = value.to_bytes((value.bit_length() + 7) // 8)
            found += [big, big[::-1]]
        lines = key_pem(key).splitlines()[1:-1]
        found += [b"".join(lines)[:64], lines[1]]
    return found


@dataclass(frozen=True)
class Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @staticmethod
    def make(name: str = "test CA", parent: Authority | None = None) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = build_certificate(
            name, key, parent.key if parent else key, parent.certificate.subject if parent else named(name), ca=True
        )
        return Authority(key, certificate)

    def issue(
        self,
        key: PrivateKey,
        name: str = "www",
        dns: Sequence[str] = ("www.example.com",),
        begin: datetime.timedelta = -DAY,
        end: datetime.timedelta = 90 * DAY,
        usage: x509.KeyUsage | None = None,
        uris: Sequence[str] = (),
    ) -> x509.Certificate:
        return build_certificate(name, key, self.key, self.certificate.subject, dns, begin, end, usage=usage, uris=uris)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def build_certificate(
    name: str,
    key: PrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    dns: Sequence[str] = (),
    begin: datetime.timedelta = -DAY,
    end: datetime.timedelta = 3650 * DAY,
    ca: bool = False,
    usage: x509.KeyUsage | None = None,
    uris: Sequence[str] = (),
) -> x509.Certificate:
    names = [*(x509.DNSName(d) for d in dns), *uri_names(uris)]
    builder = unsigned(named(name), issuer, key.public_key(), begins=NOW + begin, ends=NOW + end, is_ca=ca, names=names)
    if usage:
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(c.public_bytes(Encoding.PEM) for c in certificates)


def write_pair(folder: Path, name: str, key: PrivateKey, *chain: x509.Certificate) -> None:
    """<folder>/<name>.crt and .key"""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.crt").write_bytes(pem(*chain))
    key_file = folder / f"{name}.key"
    key_file.write_bytes(key_pem(key))
    key_file.chmod(0o600)
