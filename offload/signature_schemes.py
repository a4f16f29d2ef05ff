"""TLS SignatureScheme code points (RFC 8446, 4.2.3): which a key can sign, in the order a server should prefer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scheme:
    code: int
    name: str
    hash: str | None  # None: the algorithm hashes itself
    tls13: bool  # allowed in a CertificateVerify of TLS 1.3


_ALL = (
    Scheme(0x0403, "ecdsa_secp256r1_sha256", "sha256", True),
    Scheme(0x0503, "ecdsa_secp384r1_sha384", "sha384", True),
    Scheme(0x0807, "ed25519", None, True),
    Scheme(0x0804, "rsa_pss_rsae_sha256", "sha256", True),
    Scheme(0x0805, "rsa_pss_rsae_sha384", "sha384", True),
    Scheme(0x0806, "rsa_pss_rsae_sha512", "sha512", True),
    Scheme(0x0401, "rsa_pkcs1_sha256", "sha256", False),
    Scheme(0x0501, "rsa_pkcs1_sha384", "sha384", False),
    Scheme(0x0601, "rsa_pkcs1_sha512", "sha512", False),
)
BY_CODE = {scheme.code: scheme for scheme in _ALL}
BY_NAME = {scheme.name: scheme for scheme in _ALL}

# ECDSA: in TLS 1.3 the scheme fixes the curve; in TLS 1.2 the hash is free, but every client that takes the curve takes
# its own hash. RSA: PSS before PKCS#1, short hash first (BoringSSL's and Go's order).
_BY_ALGORITHM = {
    "p256": (0x0403,),
    "p384": (0x0503,),
    "ed25519": (0x0807,),
    "rsa2048": (0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601),
    "rsa3072": (0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601),
    "rsa4096": (0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601),
}


def schemes_for(algorithm: str, usage: str) -> tuple[int, ...]:
    """What a key of this algorithm signs within its usage, best first. KeyError for an unknown algorithm."""
    return tuple(code for code in _BY_ALGORITHM[algorithm] if usage != "tls13" or BY_CODE[code].tls13)
