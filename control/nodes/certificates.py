"""Certificates of nodes: what a daemon shows the control plane after it has joined with its token.

They come from a CA of their own, which signs nothing else and which only the port for nodes believes. A certificate
carries the node's name and the id of the token that it was got with: revoking the token ends both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control.ca.authority import CLOCK_SKEW, key_usage
from control.ca.issue import RefusedRequest, key_of_request
from control.serving_certificate import ServingCertificate, own_authority
from control.store.store import Store
from control.tokens.tokens import InvalidToken

# As those of workloads: renewed at half of it, so a node that was away for less comes back without its token.
LIFETIME = timedelta(hours=24)
NAME_MAX = 64  # of a common name (RFC 5280, ub-common-name)
_CA = "control-plane/node-ca"


@dataclass(frozen=True)
class NodeClaims:
    """Who a node is, by its token or by its certificate."""

    name: str
    jti: str
    # Seconds since 1970, of a certificate: a stream that was opened with it ends then. None: of a token.
    ends_at: float | None = None


@dataclass(frozen=True)
class NodeCertificate:
    """DER, without the CA. `renew_at`: seconds since 1970."""

    der: bytes
    renew_at: float


class NodeCertificates:
    def __init__(self, store: Store, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store, self._now = store, clock
        self._authority = own_authority(store, _CA, "nodes", clock())

    def issue(self, request: bytes, claims: NodeClaims) -> NodeCertificate:
        """For the key of a PKCS#10 request. RefusedRequest."""
        if len(claims.name) > NAME_MAX:
            raise RefusedRequest(f"the node's name has more than {NAME_MAX} characters: it fits no certificate")
        key, now, authority = key_of_request(request, ""), self._now(), self._authority
        subject = [(NameOID.COMMON_NAME, claims.name), (NameOID.SERIAL_NUMBER, claims.jti)]
        builder = x509.CertificateBuilder().issuer_name(authority.certificate.subject)
        builder = builder.subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in subject]))
        builder = builder.public_key(key).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - CLOCK_SKEW).not_valid_after(now + LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(key_usage(), critical=True)
        # Not for servers: with it a node could not stand in for the control plane.
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        own = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        builder = builder.add_extension(own, critical=False)
        certificate = builder.sign(authority.key, authority.hash_algorithm)  # type: ignore[arg-type]  # None: Ed25519
        der = certificate.public_bytes(serialization.Encoding.DER)
        return NodeCertificate(der, (now + LIFETIME / 2).timestamp())

    def check(self, pem: bytes) -> NodeClaims:
        """Of a certificate that TLS has verified: whose it is. InvalidToken where it counts no more."""
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            (jti,) = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
            if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                raise ValueError("it is a CA")
            certificate.verify_directly_issued_by(self._authority.certificate)
        except Exception as error:
            raise InvalidToken("this is not a node's certificate") from error
        if certificate.not_valid_after_utc <= self._now():
            raise InvalidToken("the node's certificate has expired: join with a token")
        if self._store.is_revoked(str(jti.value)):
            raise InvalidToken("the token that the node joined with was revoked")
        return NodeClaims(str(name.value), str(jti.value), certificate.not_valid_after_utc.timestamp())

    def grpc_credentials(self, serving: ServingCertificate) -> grpc.ServerCredentials:
        """The control plane's own certificate, for clients with a certificate of a node only."""
        ca = self._authority.certificate_pem.encode()
        return grpc.ssl_server_credentials([serving.key_and_chain()], ca, require_client_auth=True)
