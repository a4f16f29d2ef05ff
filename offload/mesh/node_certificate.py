"""The node's own certificate, for mutual TLS with the control plane, and when it is shown, renewed or not used.

Its key is generated here and lives in this process's memory only, like the node token, which grants the same access:
gRPC takes it as PEM, so it cannot be in locked memory (docs/decisions/0037). Keys of identities are kept apart from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from offload.identities.certificates import parse_certificates

COME_BACK_TEXT = b"offload: node comes back\0"
RENEW_SHARE_LATEST = 0.75  # of its life, whatever the control plane says


@dataclass(frozen=True)
class NodeCertificate:
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    address: str  # where it is shown
    renew_at: float  # seconds since 1970
    not_after: float


@dataclass(frozen=True)
class Request:
    der: bytes
    key: ec.EllipticCurvePrivateKey = field(repr=False)


def make_request() -> Request:
    """Makes a request for a new key; it names nobody, since the token says who the node is."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return Request(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER), key)


def take(request: Request, chain: Sequence[bytes], renew_at: float, control_plane: str, port: int) -> NodeCertificate:
    """Accepts the control plane's response. ValueError if it does not fit the request, or is not a certificate."""
    certificates = parse_certificates(chain[:10])
    if not certificates:
        raise ValueError("the answer contains no certificate")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificates[0].public_key().public_bytes(*form) != request.key.public_key().public_bytes(*form):
        raise ValueError("the certificate is for another key")
    if not 0 < port < 65536:
        raise ValueError(f"invalid port {port}")
    begin, end = (
        moment.timestamp() for moment in (certificates[0].not_valid_before_utc, certificates[0].not_valid_after_utc)
    )
    latest = begin + RENEW_SHARE_LATEST * (end - begin)
    return NodeCertificate(
        b"".join(one.public_bytes(Encoding.PEM) for one in certificates),
        request.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        f"{control_plane.rpartition(':')[0]}:{port}",
        min(renew_at, latest) if renew_at > 0 else latest,
        end,
    )


def proof(ended: NodeCertificate, request: Request) -> tuple[bytes, bytes]:
    """The expired certificate (DER) and the signature that requests its successor, as in JoinRequest of node.proto."""
    key = load_pem_private_key(ended.key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("a node's key is an ECDSA key")
    certificate = x509.load_pem_x509_certificate(ended.chain_pem).public_bytes(Encoding.DER)
    return certificate, key.sign(COME_BACK_TEXT + request.der, ec.ECDSA(hashes.SHA256()))


@dataclass
class Credential:
    """Pure: which credential to use next. A rejected certificate is not shown again before the token was tried."""

    certificate: NodeCertificate | None = None
    refused: bool = False

    def to_show(self, now: float) -> NodeCertificate | None:
        """The certificate to show; None means the token."""
        one = self.certificate
        return one if one is not None and now < one.not_after and not self.refused else None

    def ended(self, now: float) -> NodeCertificate | None:
        """An expired certificate, which may still get its successor."""
        one = self.certificate
        return one if one is not None and now >= one.not_after else None

    def is_due(self, now: float) -> bool:
        return self.certificate is None or now >= self.certificate.renew_at

    def got(self, certificate: NodeCertificate) -> None:
        self.certificate, self.refused = certificate, False

    def failed(self, now: float) -> bool:
        """Records that no stream was established. True: a certificate was shown, and the token is to be tried at once;
        after that it is the certificate's turn again, since tokens expire too."""
        self.refused = self.to_show(now) is not None
        return self.refused
