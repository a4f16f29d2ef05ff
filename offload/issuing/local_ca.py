"""A CA whose certificate and key are files on this host: for development, tests, and a single machine.

The CA's key is an ordinary Python object here. If that is not good enough, use `exec`, or the control plane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from offload.config.issuers import LocalCa
from offload.filesystem.trusted_paths import Trust, UntrustedPathError, read_trusted
from offload.identities.certificates import UNREADABLE
from offload.issuing.issuer import Issued, IssuerError, Wanted
from offload.reporting.logs import get_logger

BACKDATED = timedelta(minutes=1)  # for peers whose clocks are a little behind

CaKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class LocalCaIssuer:
    """Reads its files for each certificate, so that a replaced CA is used at once."""

    settings: LocalCa
    trust: Trust = field(default_factory=Trust.of)
    # Warnings that were logged about the key's file, which must not repeat with each certificate.
    _told: set[str] = field(default_factory=set, compare=False)

    def issue(self, request: bytes, wanted: Wanted) -> Issued:
        authority, chain = self._certificates()
        key = self._key()
        if key.public_key() != authority.public_key():
            raise IssuerError(f"{self.settings.key} is not the key of {self.settings.certificate}")
        leaf = sign(request, wanted, authority, key, timedelta(hours=self.settings.lifetime_hours))
        return Issued((leaf.public_bytes(Encoding.DER), *(one.public_bytes(Encoding.DER) for one in chain)))

    def _certificates(self) -> tuple[x509.Certificate, list[x509.Certificate]]:
        """The CA, and the certificates for the chain: all of the file but the root."""
        try:
            found = x509.load_pem_x509_certificates(_read(self.settings.certificate, self.trust))
        except UNREADABLE as error:
            raise IssuerError(f"{self.settings.certificate}: {error}") from error
        return found[0], [one for one in found if one.subject != one.issuer]

    def _key(self) -> CaKey:
        try:
            key = load_pem_private_key(_read(self.settings.key, self.trust, self._exposed), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The library's message could quote the file.
            raise IssuerError(f"{self.settings.key} is not an unencrypted private key in PEM form") from None
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
            raise IssuerError(f"{self.settings.key} is not an RSA, ECDSA or Ed25519 key")
        return key

    def _exposed(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            get_logger().warning("other users can read the key of the local CA", why=text)


def sign(
    request: bytes, wanted: Wanted, authority: x509.Certificate, key: CaKey, lifetime: timedelta
) -> x509.Certificate:
    """An X.509-SVID, or a plain TLS certificate, for the request's key and the wanted names. IssuerError."""
    try:
        parsed = x509.load_der_x509_csr(request)
    except ValueError as error:
        raise IssuerError(f"the certificate request cannot be parsed: {error}") from error
    if not parsed.is_signature_valid:
        raise IssuerError("the certificate request is not signed by its own key")
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in wanted.uris]
    names += [x509.DNSName(name) for name in wanted.dns_names]
    usages = dict.fromkeys(_KEY_USAGES, False) | {"digital_signature": True}
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(parsed.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(now + lifetime, authority.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usages), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(parsed.public_key()), critical=False)
        .add_extension(_authority_key_identifier(authority), critical=False)
    )
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


_KEY_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def _authority_key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        named = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(named)


def _read(path: Path, trust: Trust, warn: Callable[[str], None] | None = None) -> bytes:
    """Whoever could put another CA there could certify themselves as anybody. IssuerError."""
    try:
        return read_trusted(path, trust, warn)
    except OSError as error:
        raise IssuerError(f"cannot read {path}: {error.strerror}") from error
    except UntrustedPathError as error:
        raise IssuerError(f"{path} is rejected: {error}") from error
