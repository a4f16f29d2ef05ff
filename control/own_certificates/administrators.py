"""Client certificates of administrators: the alternative to a token for the API.

They come from a separate CA, which signs nothing else and which only the API trusts; the control plane issues them for
a key that stays with the administrator (`mesh generate admin-certificate`). A certificate has an id, as a token does,
and is revoked by it.
"""

from __future__ import annotations

import secrets as random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from control.ca.issue import RefusedRequest
from control.own_certificates.client_authority import NAME_MAX, ClientAuthority, Holder, Refusals
from control.store.store import Store

# Long enough for an administrator's laptop; a longer one would become a forgotten secret.
LONGEST = timedelta(days=90)
_CA = "control-plane/admin-ca"
_REFUSALS = Refusals(
    not_ours="this is not an administrator's certificate",
    expired="the certificate has expired: generate a new one",
    revoked="the certificate was revoked",
)


@dataclass(frozen=True)
class AdminCertificate:
    """`jti`: what `mesh revoke` takes."""

    pem: str
    jti: str
    not_after: datetime


class AdminCertificates:
    def __init__(self, store: Store, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self.authority = ClientAuthority(store, _CA, "administrators", _REFUSALS, clock)

    def issue(self, request: bytes, name: str, valid: timedelta) -> AdminCertificate:
        """Issues one for the key of a PKCS#10 request (DER). Raises RefusedRequest."""
        if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
            raise RefusedRequest(f"the name must have 1 to {NAME_MAX} printable characters")
        if not timedelta(0) < valid <= LONGEST:
            raise RefusedRequest(f"a certificate is valid for at most {LONGEST.days * 24}h")
        jti = random.token_hex(16)
        made = self.authority.issue(request, name, jti, valid)
        end = int(made.not_valid_after_utc.timestamp())
        now = self.authority.now().timestamp()
        self._store.record_issued(jti, end, f"administrator's certificate of {name!r}", now)
        pem = made.public_bytes(serialization.Encoding.PEM).decode()
        return AdminCertificate(pem, jti, made.not_valid_after_utc)

    def check(self, der: bytes) -> Holder:
        """Returns the holder of a certificate that TLS has verified. Raises InvalidToken if it is no longer valid."""
        return self.authority.check(x509.load_der_x509_certificate, der)
