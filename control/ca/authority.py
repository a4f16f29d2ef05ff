"""A certificate authority: generated here or read from files, and its stored form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

# Long, because ending a CA is done by rotation and not by expiry; the same as Kuma's generated CAs.
AUTHORITY_LIFETIME = timedelta(days=3650)
# Tolerance for the difference between the clocks of a mesh.
CLOCK_SKEW = timedelta(minutes=1)

_PEM = serialization.Encoding.PEM
_NOBODY = x509.Name([])


class UnusableAuthority(ValueError):
    """A certificate and key that cannot be a CA of the mesh; the message says why."""


@dataclass(frozen=True)
class Authority:
    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes = field(repr=False)

    @property
    def certificate_pem(self) -> str:
        return self.certificate.public_bytes(_PEM).decode()

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def hash_algorithm(self) -> hashes.HashAlgorithm | None:
        """The hash for signing with the key; None for Ed25519, which has its own."""
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return hashes.SHA384() if self.key.curve.key_size > 256 else hashes.SHA256()
        return hashes.SHA256() if isinstance(self.key, rsa.RSAPrivateKey) else None

    @property
    def ends_at(self) -> float:
        """Expiry, in seconds since 1970."""
        return self.certificate.not_valid_after_utc.timestamp()

    def problem_at(self, now: datetime) -> str | None:
        """Why certificates of this CA would be rejected now; None if it can sign."""
        begin, end = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        if end <= now:
            return f"the certificate expired on {end:%Y-%m-%d %H:%M} UTC"
        return f"the certificate is not valid before {begin:%Y-%m-%d %H:%M} UTC" if now < begin else None

    def leaf(
        self,
        key: CertificatePublicKeyTypes,
        now: datetime,
        until: datetime,
        purposes: Sequence[x509.ObjectIdentifier],
        subject: x509.Name = _NOBODY,
        names: Sequence[x509.GeneralName] = (),
    ) -> x509.Certificate:
        """Issues a certificate for handshakes, with either names or a subject."""
        issuer = self.certificate.subject
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - CLOCK_SKEW).not_valid_after(until)
        if names:
            # Critical, because the subject is empty (RFC 5280, 4.2.1.6).
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(key_usage(), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        builder = builder.add_extension(self._identifier(), critical=False)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        return builder.sign(self.key, self.hash_algorithm)  # type: ignore[arg-type]  # None: Ed25519

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key())  # type: ignore[arg-type]
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)

    def to_pem(self) -> tuple[str, str]:
        """Returns (certificate, key) for the store, which seals it."""
        key = self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self.certificate_pem, key.decode()


def generate(trust_domain: str, now: datetime) -> Authority:
    """A self-signed P-256 CA whose SPIFFE id is that of the trust domain."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial makes the names differ, so that a verifier never tries the older CA of a rotation by its name.
    serial = x509.random_serial_number()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"{trust_domain[:50]} CA"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, format(serial, "x")),
        ]
    )
    public_key = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    uri = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(public_key)
    builder = builder.serial_number(serial).not_valid_before(now - CLOCK_SKEW).not_valid_after(now + AUTHORITY_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage(certificates=True), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    builder = builder.add_extension(identifier, critical=False)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def begun_now(authority: Authority, now: datetime) -> Authority:
    """Reissues a generated CA that is not valid yet: the same name and key, valid from now on.

    It was generated while the clock was ahead. Nobody can have accepted a certificate of it, and whatever verifies with
    the older one, from its start on, verifies with this one too.
    """
    old = authority.certificate
    builder = x509.CertificateBuilder().subject_name(old.subject).issuer_name(old.subject)
    builder = builder.public_key(old.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - CLOCK_SKEW).not_valid_after(now + AUTHORITY_LIFETIME)
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return Authority(builder.sign(authority.key, authority.hash_algorithm), authority.key)  # type: ignore[arg-type]  # None: Ed25519


def key_usage(certificates: bool = False) -> x509.KeyUsage:
    """Usage for signing certificates, or for handshakes; never both."""
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def load(certificate_pem: str, key_pem: str, where: str) -> Authority:
    """Loads a CA whatever its validity: an expired one can be inspected, and replaced. Raises UnusableAuthority.

    `where` names the source in messages.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableAuthority(f"{where}: not a certificate and an unencrypted key in PEM form: {error}") from None
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        constraints = None
    if constraints is None or not constraints.ca:
        raise UnusableAuthority(f"{where}: the certificate is not a CA certificate (basic constraints)")
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*spki) != certificate.public_key().public_bytes(*spki):
        raise UnusableAuthority(f"{where}: the key does not belong to the certificate")
    return Authority(certificate, key)  # type: ignore[arg-type]  # a key of a CA certificate can sign


def from_pem(certificate_pem: str, key_pem: str, where: str, now: datetime) -> Authority:
    """Loads a CA that can sign now. Raises UnusableAuthority."""
    authority = load(certificate_pem, key_pem, where)
    problem = authority.problem_at(now)
    if problem is not None:
        raise UnusableAuthority(f"{where}: {problem}")
    return authority
