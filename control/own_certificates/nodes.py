"""Certificates of nodes: what a daemon shows the control plane after it has joined with its token.

They come from a separate CA, which signs nothing else and which only the port for nodes trusts. A certificate carries
the node's name and the id of the token that it was obtained with: revoking the token ends both.
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

# The same as for workloads, renewed at half of it.
LIFETIME = timedelta(hours=24)
# How long after its expiry a certificate still gets its holder the next one: a long weekend and some repair. A node
# that was away for longer needs attention, and a new token.
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
    """Who a node is, according to its token or its certificate."""

    name: str
    jti: str
    # Expiry of the certificate, seconds since 1970: a stream that was opened with it ends then. None for a token.
    ends_at: float | None = None
    # Id of the key that signed the token.
    key_id: str = ""


@dataclass(frozen=True)
class NodeCertificate:
    """A certificate in DER, without the CA. Times are seconds since 1970."""

    der: bytes
    renew_at: float
    ends_at: float


class NodeCertificates:
    def __init__(self, store: Store, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = clock
        self._authority = ClientAuthority(store, _CA, "nodes", _REFUSALS, clock)

    def renew_if_due(self) -> bool:
        """Renews the CA if it is not valid now; if True, servers have to be told."""
        return self._authority.renew_if_due()

    def issue(self, request: bytes, claims: NodeClaims) -> NodeCertificate:
        """Issues a certificate for the key of a PKCS#10 request. Raises RefusedRequest."""
        if len(claims.name) > NAME_MAX:
            raise RefusedRequest(f"the node's name has more than {NAME_MAX} characters: too long for a certificate")
        made = self._authority.issue(request, claims.name, claims.jti, LIFETIME)
        der = made.public_bytes(serialization.Encoding.DER)
        return NodeCertificate(der, (self._now() + LIFETIME / 2).timestamp(), made.not_valid_after_utc.timestamp())

    def check(self, pem: bytes) -> NodeClaims:
        """Returns the holder of a certificate that TLS has verified. Raises InvalidToken if it is no longer valid."""
        holder = self._authority.check(x509.load_pem_x509_certificate, pem)
        return NodeClaims(holder.name, holder.jti, holder.ends_at.timestamp())

    def check_ended(self, certificate: bytes, proof: bytes, request: bytes) -> NodeClaims:
        """Returns the holder of an expired certificate (DER), at most COME_BACK old, given a proof that it has the key.

        Raises InvalidToken. The proof covers the request, so that an eavesdropper cannot use it for anything else.
        """
        holder = self._authority.check(x509.load_der_x509_certificate, certificate, COME_BACK)
        key = x509.load_der_x509_certificate(certificate).public_key()
        try:
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise InvalidSignature
            key.verify(proof, COME_BACK_TEXT + request, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise InvalidToken("the proof of possession of the node's expired certificate does not verify") from None
        return NodeClaims(holder.name, holder.jti)

    def grpc_credentials(self, serving: ServingCertificate) -> grpc.ServerCredentials:
        """Credentials with the control plane's own certificate that accept only clients with a node's certificate."""
        ca = self._authority.certificate_pem.encode()
        return grpc.ssl_server_credentials([serving.key_and_chain()], ca, require_client_auth=True)
