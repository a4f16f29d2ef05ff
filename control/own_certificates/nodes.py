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
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.ca.issue import RefusedRequest
from control.own_certificates.client_authority import NAME_MAX, ClientAuthority, Refusals
from control.own_certificates.serving import ServingCertificate
from control.store.store import Store
from control.tokens.tokens import InvalidToken

# As those of workloads, renewed at half of it.
LIFETIME = timedelta(hours=24)
# How long after its end a certificate still gets its holder the next one: over a long weekend and some repair. A node
# that was away for longer needs somebody to look at it, and a new token.
COME_BACK = timedelta(days=7)
COME_BACK_TEXT = b"offload: node comes back\0"
_CA = "control-plane/node-ca"
_REFUSALS = Refusals(
    not_ours="this is not a node's certificate",
    expired="the node's certificate has expired: join with a token",
    revoked="the token that the node joined with was revoked",
)


@dataclass(frozen=True)
class NodeClaims:
    """Who a node is, by its token or by its certificate."""

    name: str
    jti: str
    # Seconds since 1970, of a certificate: a stream that was opened with it ends then. None: of a token.
    ends_at: float | None = None
    # Of the key that signed the token.
    key_id: str = ""


@dataclass(frozen=True)
class NodeCertificate:
    """DER, without the CA. Times are seconds since 1970."""

    der: bytes
    renew_at: float
    ends_at: float


class NodeCertificates:
    def __init__(self, store: Store, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = clock
        self._authority = ClientAuthority(store, _CA, "nodes", _REFUSALS, clock)

    def renew_if_due(self) -> bool:
        """The CA, where it is not valid now. True: servers have to be told."""
        return self._authority.renew_if_due()

    def issue(self, request: bytes, claims: NodeClaims) -> NodeCertificate:
        """For the key of a PKCS#10 request. RefusedRequest."""
        if len(claims.name) > NAME_MAX:
            raise RefusedRequest(f"the node's name has more than {NAME_MAX} characters: it fits no certificate")
        made = self._authority.issue(request, claims.name, claims.jti, LIFETIME)
        der = made.public_bytes(serialization.Encoding.DER)
        return NodeCertificate(der, (self._now() + LIFETIME / 2).timestamp(), made.not_valid_after_utc.timestamp())

    def check(self, pem: bytes) -> NodeClaims:
        """Of a certificate that TLS has verified: whose it is. InvalidToken where it counts no more."""
        holder = self._authority.check(x509.load_pem_x509_certificate, pem)
        return NodeClaims(holder.name, holder.jti, holder.ends_at.timestamp())

    def check_ended(self, certificate: bytes, proof: bytes, request: bytes) -> NodeClaims:
        """Of a certificate (DER) that has ended, at most COME_BACK ago, with the proof that its holder has its key.

        InvalidToken. The proof covers the request, so that whoever hears it can do nothing else with it.
        """
        holder = self._authority.check(x509.load_der_x509_certificate, certificate, COME_BACK)
        key = x509.load_der_x509_certificate(certificate).public_key()
        try:
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise InvalidSignature
            key.verify(proof, COME_BACK_TEXT + request, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise InvalidToken("the proof of the node's ended certificate is wrong") from None
        return NodeClaims(holder.name, holder.jti)

    def grpc_credentials(self, serving: ServingCertificate) -> grpc.ServerCredentials:
        """The control plane's own certificate, for clients with a certificate of a node only."""
        ca = self._authority.certificate_pem.encode()
        return grpc.ssl_server_credentials([serving.key_and_chain()], ca, require_client_auth=True)
