"""Certificate chains: what the daemon needs to know about one, and whether it is fit to be served.

Only public material is read here. This module trusts nobody: it is for the peer to judge the issuer. It checks for
whatever would make every peer reject the chain, and for what the Envoy module could not load: if the parsers differed,
a certificate accepted here could replace a good one and be useless there.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from offload import _dataplane

CHAIN_LENGTH_MAX = 10  # OpenSSL and BoringSSL stop near there
CHAIN_SIZE_MAX = 64 * 1024  # of DER; peers limit the Certificate message to about 100 KiB
# Exceptions of the library for bytes that it cannot read, many of them only when a field is accessed.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
CLOCK_SKEW = timedelta(minutes=5)  # a certificate made a moment ago on another host is not "from the future"


class CertificateError(ValueError):
    """A chain that cannot be served; the message says why."""


@dataclass(frozen=True)
class Chain:
    """A certificate chain, leaf first."""

    der: tuple[bytes, ...]
    key_id: bytes  # SHA-256 of the leaf's SubjectPublicKeyInfo
    subject: str
    serial_number: str  # hexadecimal
    dns_names: tuple[str, ...]
    uris: tuple[str, ...]
    not_before: int  # seconds since 1970, of the leaf
    not_after: int
    chain_not_after: int  # of the certificate that ends first


def key_id_of(certificate: x509.Certificate) -> bytes:
    return sha256(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def parse_certificates(ders: Sequence[bytes]) -> list[x509.Certificate]:
    """CertificateError if one is not a certificate, or has a public key of an unknown kind."""
    parsed = []
    for number, der in enumerate(ders, 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # judged by the peers, not by us
                certificate = x509.load_der_x509_certificate(der)
                certificate.public_key()
                # The library parses these when they are accessed, and raises then.
                _ = certificate.subject.rfc4514_string(), certificate.issuer, certificate.serial_number
                _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        except UNREADABLE as error:
            raise CertificateError(f"certificate {number} cannot be parsed: {error}") from error
        parsed.append(certificate)
    return parsed


def read_chain(ders: Sequence[bytes], now: datetime) -> Chain:
    """Parses and checks a chain that begins with its leaf: order, dates, sizes. CertificateError."""
    if not ders:
        raise CertificateError("it contains no certificate")
    if len(ders) > CHAIN_LENGTH_MAX or sum(map(len, ders)) > CHAIN_SIZE_MAX:
        raise CertificateError(
            f"{len(ders)} certificates of {sum(map(len, ders))} bytes exceed what TLS peers accept "
            f"({CHAIN_LENGTH_MAX}, {CHAIN_SIZE_MAX} bytes)"
        )
    certificates = parse_certificates(ders)
    _check_order(certificates)
    for number, certificate in enumerate(certificates, 1):
        _check_dates(certificate, number, now)
    leaf = certificates[0]
    _check_usage(leaf)
    dns_names, uris = _alternative_names(leaf)
    try:
        _dataplane.check_chain(ders)
    except ValueError as error:
        raise CertificateError(f"Envoy's TLS library (BoringSSL) would reject it: {error}") from error
    return Chain(
        der=tuple(ders),
        key_id=key_id_of(leaf),
        subject=_printable(leaf.subject.rfc4514_string()),
        serial_number=_serial_number(leaf),
        dns_names=dns_names,
        uris=uris,
        not_before=_seconds(leaf.not_valid_before_utc),
        not_after=_seconds(leaf.not_valid_after_utc),
        chain_not_after=min(_seconds(c.not_valid_after_utc) for c in certificates),
    )


def read_authorities(ders: Sequence[bytes]) -> tuple[bytes, ...]:
    """Checks a trust bundle: every certificate parses and may issue others. CertificateError."""
    if not ders:
        raise CertificateError("it contains no certificate")
    for number, certificate in enumerate(parse_certificates(ders), 1):
        if not _is_authority(certificate):
            raise CertificateError(f"certificate {number} ({_name(certificate)}) is not a CA certificate")
        try:
            _dataplane.check_certificate(ders[number - 1])
        except ValueError as error:
            raise CertificateError(
                f"Envoy's TLS library (BoringSSL) would reject certificate {number} ({_name(certificate)}): {error}"
            ) from error
    return tuple(dict.fromkeys(ders))


def _check_order(certificates: Sequence[x509.Certificate]) -> None:
    for number, (issued, issuer) in enumerate(pairwise(certificates), 1):
        try:
            issued.verify_directly_issued_by(issuer)
        except (*UNREADABLE, InvalidSignature):
            raise CertificateError(
                f"certificate {number} ({_name(issued)}) was not issued by certificate {number + 1} "
                f"({_name(issuer)}): put the leaf first, then each issuer"
            ) from None


def _check_dates(certificate: x509.Certificate, number: int, now: datetime) -> None:
    if certificate.not_valid_after_utc < now:
        raise CertificateError(
            f"certificate {number} ({_name(certificate)}) expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M}Z"
        )
    if certificate.not_valid_before_utc > now + CLOCK_SKEW:
        begin = certificate.not_valid_before_utc
        raise CertificateError(
            f"certificate {number} ({_name(certificate)}) is not valid before {begin:%Y-%m-%d %H:%M}Z"
        )


def _check_usage(leaf: x509.Certificate) -> None:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    except UNREADABLE as error:
        raise CertificateError(f"the leaf's extensions cannot be parsed: {error}") from error
    if not usage.digital_signature:
        raise CertificateError("the leaf's key usage does not allow digital signatures, so TLS peers reject it")


def _alternative_names(leaf: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    except UNREADABLE as error:
        raise CertificateError(f"the leaf's extensions cannot be parsed: {error}") from error
    dns = tuple(name.lower() for name in names.get_values_for_type(x509.DNSName) if name.isprintable())
    return dns, tuple(u for u in names.get_values_for_type(x509.UniformResourceIdentifier) if u.isprintable())


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False


def _name(certificate: x509.Certificate) -> str:
    return _printable(certificate.subject.rfc4514_string()) or f"serial {_serial_number(certificate)}"


def _serial_number(certificate: x509.Certificate) -> str:
    """Hexadecimal. The library warns about each one that is not positive, at every access."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return f"{certificate.serial_number:x}"


def _printable(text: str) -> str:
    """Removes cursor movements: names are shown on terminals."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _seconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp())
