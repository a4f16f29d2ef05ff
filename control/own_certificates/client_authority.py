"""CAs of the control plane's own clients, nodes and administrators: what both kinds of certificates have in common.

Each kind has a separate CA, which signs nothing else and which one port trusts. A certificate carries a name and an id
(`jti`, as a token has), and is revoked by that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control.ca.issue import key_of_request
from control.own_certificates.serving import own_authority
from control.store.store import Store
from control.tokens.tokens import InvalidToken

NAME_MAX = 64  # bound for a common name (RFC 5280, ub-common-name)


@dataclass(frozen=True)
class Refusals:
    """The reasons why a certificate is rejected, in words for its holder."""

    not_ours: str
    expired: str
    revoked: str


@dataclass(frozen=True)
class Holder:
    """Who holds a certificate."""

    name: str
    jti: str
    ends_at: datetime


class ClientAuthority:
    """`name`: the name of the secret that holds it. `subject`: for whom it signs."""

    def __init__(self, store: Store, name: str, subject: str, why: Refusals, clock: Callable[[], datetime]) -> None:
        self._store, self._why, self.now = store, why, clock
        self._name, self._subject = name, subject
        self._authority = own_authority(store, name, subject, clock())

    @property
    def certificate_pem(self) -> str:
        return self._authority.certificate_pem

    def renew_if_due(self) -> bool:
        """Renews the CA if it is not valid now (see own_authority); if True, servers have to be told."""
        if self._authority.problem_at(self.now()) is None:
            return False
        self._authority = own_authority(self._store, self._name, self._subject, self.now())
        return True

    def issue(self, request: bytes, name: str, jti: str, valid: timedelta) -> x509.Certificate:
        """Issues a certificate for the key of a PKCS#10 request (DER). Raises RefusedRequest."""
        key, now = key_of_request(request, ""), self.now()
        attributes = [(NameOID.COMMON_NAME, name), (NameOID.SERIAL_NUMBER, jti)]
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
        # Not for server authentication: with that a client could impersonate the control plane.
        return self._authority.leaf(key, now, now + valid, [ExtendedKeyUsageOID.CLIENT_AUTH], subject)

    def check(self, load: Callable[[bytes], x509.Certificate], data: bytes, grace: timedelta = timedelta(0)) -> Holder:
        """Returns the holder of a certificate that TLS has verified. Raises InvalidToken if it is no longer valid.

        Time is checked again, since a connection may outlive the certificate it began with. `grace` is how long after
        its expiry it still identifies its holder; the caller then has to verify possession of the key.
        """
        try:
            certificate = load(data)
            (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            (jti,) = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
            if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                raise ValueError("it is a CA certificate")
            certificate.verify_directly_issued_by(self._authority.certificate)
        except Exception as error:
            raise InvalidToken(self._why.not_ours) from error
        if certificate.not_valid_after_utc + grace <= self.now():
            raise InvalidToken(self._why.expired)
        if self._store.is_revoked(str(jti.value)):
            raise InvalidToken(self._why.revoked)
        return Holder(str(name.value), str(jti.value), certificate.not_valid_after_utc)
