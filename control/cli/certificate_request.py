"""A key generated here, and the request for its certificate."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make_request() -> tuple[str, str]:
    """Returns (key, PKCS#10 request), both PEM."""
    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key_pem.decode(), request.public_bytes(pem).decode()
