"""Issues X.509-SVIDs, and checks whether a certificate is one.

Source: SPIFFE, "The X.509 SPIFFE Verifiable Identity Document"; the sections in messages are its sections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from control.ca.authority import Authority
from control.model.target_ref import spiffe_id_problem

# No legitimate request for an SVID is larger.
MAX_REQUEST_BYTES = 16 * 1024


class RefusedRequest(ValueError):
    """A certificate request that is rejected; the message says why."""


@dataclass(frozen=True)
class Svid:
    """`chain_pem`: leaf first, without the root. `issued_at`: by the issuer's clock."""

    certificate: x509.Certificate
    chain_pem: str
    issued_at: datetime

    @property
    def not_after(self) -> datetime:
        return self.certificate.not_valid_after_utc

    @property
    def half_life(self) -> datetime:
        """When renewal begins: at half of what was left when it was issued.

        Half of the validity in the certificate would be wrong, since that begins earlier to tolerate unequal clocks:
        half of two minutes of which one is already over is no time at all.
        """
        return self.issued_at + (self.not_after - self.issued_at) / 2


def key_of_request(request_der: bytes, spiffe_id: str) -> CertificatePublicKeyTypes:
    """The public key of a PKCS#10 request. Raises RefusedRequest.

    The requester proves possession of the key. It need not ask for names, but must not ask for any but its own.
    """
    if len(request_der) > MAX_REQUEST_BYTES:
        raise RefusedRequest(f"the request has {len(request_der)} bytes; at most {MAX_REQUEST_BYTES} are accepted")
    try:
        request = x509.load_der_x509_csr(request_der)
        valid, key = request.is_signature_valid, request.public_key()
    except (ValueError, TypeError, InvalidSignature) as error:
        raise RefusedRequest(f"not a certificate request (PKCS#10, DER): {error}") from None
    if not valid:
        raise RefusedRequest("its signature does not verify with its key: the requester does not have the private key")
    problem = _key_problem(key)
    if problem is not None:
        raise RefusedRequest(problem)
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return key
    asked = [name.value for name in names]
    if asked != [spiffe_id]:
        wanted = f"not {spiffe_id}" if spiffe_id else "and it must name nobody"
        raise RefusedRequest(f"it requests {', '.join(map(str, asked))}, {wanted}")
    return key


def _key_problem(key: object) -> str | None:
    if isinstance(key, rsa.RSAPublicKey):
        sizes = (2048, 3072, 4096)
        fits = key.key_size in sizes and key.public_numbers().e == 65537
        return None if fits else f"RSA keys must have {sizes} bits and the exponent 65537; this one has {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        fits = isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
        return None if fits else f"EC keys must be on P-256 or P-384, not on {key.curve.name}"
    return None if isinstance(key, ed25519.Ed25519PublicKey) else f"keys of type {type(key).__name__} are not accepted"


def issue(
    authority: Authority,
    key: CertificatePublicKeyTypes,
    spiffe_id: str,
    expiry: timedelta,
    now: datetime,
) -> Svid:
    """Issues an SVID for both client and server authentication. Raises RefusedRequest."""
    problem = spiffe_id_problem(spiffe_id)
    if problem is not None:
        raise RefusedRequest(f"{spiffe_id!r} is not a SPIFFE id: {problem}")
    unusable = authority.problem_at(now)
    if unusable is not None:
        raise RefusedRequest(f"the CA cannot sign: {unusable}; replace it (mesh ca rotate ... reset)")
    # A certificate that outlives its CA would suddenly fail when the CA expires.
    not_after = min(now + expiry, authority.certificate.not_valid_after_utc)
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    names = [x509.UniformResourceIdentifier(spiffe_id)]
    certificate = authority.leaf(key, now, not_after, uses, names=names)
    return Svid(certificate, certificate.public_bytes(serialization.Encoding.PEM).decode(), now)


def svid_problems(certificate: x509.Certificate) -> Iterator[str]:
    """Reasons why a leaf is not a valid X.509-SVID; empty if it is."""
    extensions = certificate.extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if len(uris) != 1:
        yield f"it has {len(uris)} URI names, not one (section 2)"
    elif (problem := spiffe_id_problem(uris[0])) is not None:
        yield f"its URI is not a SPIFFE id: {problem} (section 2)"
    elif not uris[0].removeprefix("spiffe://").partition("/")[2]:
        yield "the SPIFFE id of a leaf has a path (section 4.1)"
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            yield "it is a CA certificate (section 4.1)"
    except x509.ExtensionNotFound:
        pass
    yield from _usage_problems(extensions)


def _usage_problems(extensions: x509.Extensions) -> Iterator[str]:
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        yield "it has no key usage (section 4.3)"
        return
    if not usage.critical:
        yield "its key usage is not critical (section 4.3)"
    if not usage.value.digital_signature:
        yield "its key usage lacks digitalSignature (section 4.3)"
    if usage.value.key_cert_sign or usage.value.crl_sign:
        yield "its key may sign certificates (section 4.3)"
