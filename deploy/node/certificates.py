"""A temporary CA, and leaf certificates of any key type under it. For demos, benchmarks and tests."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

KEY_TYPES = ("rsa2048", "rsa3072", "rsa4096", "p256", "p384")
DAYS = 30


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def uri_names(uris: Iterable[str]) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(uri) for uri in uris]


def unsigned(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificatePublicKeyTypes,
    *,
    begins: datetime.datetime | None = None,
    ends: datetime.datetime | None = None,
    serial: int | None = None,
    is_ca: bool | None = False,
    path_length: int | None = None,
    names: Sequence[x509.GeneralName] = (),
    names_are_critical: bool = False,
) -> x509.CertificateBuilder:
    """A certificate to which more extensions may be added before it is signed.

    It begins an hour ago and ends after DAYS unless told otherwise. `is_ca` None leaves the basic constraints out.
    """
    start = begins or datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(ends or start + datetime.timedelta(days=DAYS))
    )
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=names_are_critical)
    return builder


def make_key(key_type: str) -> PrivateKey:
    """A fresh key of one of KEY_TYPES."""
    match key_type:
        case "rsa2048" | "rsa3072" | "rsa4096":
            return rsa.generate_private_key(public_exponent=65537, key_size=int(key_type.removeprefix("rsa")))
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            raise ValueError(f"'{key_type}' is not one of the key types {', '.join(KEY_TYPES)}")


@dataclass(frozen=True)
class Leaf:
    """A key pair on disk: chain (leaf only; its issuer is the root) and key, PEM."""

    name: str
    key_type: str
    key: PrivateKey
    certificate_file: Path
    key_file: Path


class Authority:
    """A CA with a P-256 key; `ca_file` is its certificate. Files go to `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = named("TLS offload demo CA")
        self._certificate = unsigned(self._name, self._name, self._key.public_key(), is_ca=True, path_length=0).sign(
            self._key, hashes.SHA256()
        )
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, key_type: str, folder: Path, uri: str | None = None) -> Leaf:
        """A leaf for `name`.demo.test, localhost and 127.0.0.1, as <folder>/<name>/cert.pem and key.pem."""
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        key = make_key(key_type)
        names: list[x509.GeneralName] = [
            x509.DNSName(f"{name}.demo.test"),
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
        ]
        if uri:
            names += uri_names([uri])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            unsigned(named(f"{name}.demo.test"), self._name, key.public_key(), names=names)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        leaf = Leaf(name, key_type, key, target / "cert.pem", target / "key.pem")
        leaf.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        write_private(leaf.key_file, pem_of(key))
        return leaf


def pem_of(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_private(path: Path, content: bytes) -> None:
    """A file that only its owner can read, from its first moment on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
