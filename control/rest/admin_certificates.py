"""Client certificates of administrators: the other way into the API beside a token.

They come from a CA of their own, which signs nothing else and which only the API believes; made by the control plane
for a key that stays with the administrator (`mesh generate admin-certificate`). A certificate has an id, as a token
has, and is revoked by it.
"""

from __future__ import annotations

import secrets as random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control.ca.authority import CLOCK_SKEW, key_usage
from control.ca.issue import RefusedRequest, key_of_request
from control.serving_certificate import own_authority
from control.store.store import Store
from control.tokens.tokens import InvalidToken

# Long enough for somebody's laptop; a longer one is a secret that nobody remembers.
LONGEST = timedelta(days=90)
NAME_MAX = 64  # of a common name (RFC 5280, ub-common-name)
_CA = "control-plane/admin-ca"


@dataclass(frozen=True)
class AdminCertificate:
    """`jti`: what `mesh revoke` takes."""

    pem: str
    jti: str
    not_after: datetime


class AdminCertificates:
    def __init__(self, store: Store, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store, self._now = store, clock
        self.authority = own_authority(store, _CA, "administrators", clock())

    def issue(self, request: bytes, name: str, valid: timedelta) -> AdminCertificate:
        """For the key of a PKCS#10 request (DER). RefusedRequest."""
        if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
            raise RefusedRequest(f"the name has 1 to {NAME_MAX} printable characters")
        if not timedelta(0) < valid <= LONGEST:
            raise RefusedRequest(f"a certificate is valid for at most {LONGEST.days * 24}h")
        key, now, jti = key_of_request(request, ""), self._now(), random.token_hex(16)
        issuer = self.authority.certificate
        subject = [(NameOID.COMMON_NAME, name), (NameOID.SERIAL_NUMBER, jti)]
        builder = x509.CertificateBuilder().issuer_name(issuer.subject)
        builder = builder.subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in subject]))
        builder = builder.public_key(key).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - CLOCK_SKEW).not_valid_after(now + valid)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(key_usage(), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        own = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        builder = builder.add_extension(own, critical=False)
        made = builder.sign(self.authority.key, self.authority.hash_algorithm)  # type: ignore[arg-type]  # None: Ed25519
        pem = made.public_bytes(serialization.Encoding.PEM).decode()
        return AdminCertificate(pem, jti, made.not_valid_after_utc)

    def check(self, der: bytes) -> str:
        """The name in a certificate that TLS has verified. InvalidToken where it counts no more.

        Time is looked at again, since a connection may live longer than the certificate it began with.
        """
        try:
            certificate = x509.load_der_x509_certificate(der)
            (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            (jti,) = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
            if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                raise ValueError("it is a CA")
            certificate.verify_directly_issued_by(self.authority.certificate)
        except Exception as error:
            raise InvalidToken("this is not an administrator's certificate") from error
        if certificate.not_valid_after_utc <= self._now():
            raise InvalidToken("the certificate has expired: generate a new one")
        if self._store.is_revoked(str(jti.value)):
            raise InvalidToken("the certificate was revoked")
        return str(name.value)
