"""TLS SignatureScheme code points (RFC 8446, 4.2.3): which ones a key can sign, in the order a server should prefer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scheme:
    code: int
    name: str
    hash: str | None  # None: the algorithm hashes itself


_ALL = (
    Scheme(0x0403, "ecdsa_secp256r1_sha256", "sha256"),
    Scheme(0x0503, "ecdsa_secp384r1_sha384", "sha384"),
    Scheme(0x0603, "ecdsa_secp521r1_sha512", "sha512"),
    Scheme(0x0807, "ed25519", None),
    Scheme(0x0804, "rsa_pss_rsae_sha256", "sha256"),
    Scheme(0x0805, "rsa_pss_rsae_sha384", "sha384"),
    Scheme(0x0806, "rsa_pss_rsae_sha512", "sha512"),
    Scheme(0x0401, "rsa_pkcs1_sha256", "sha256"),
    Scheme(0x0501, "rsa_pkcs1_sha384", "sha384"),
    Scheme(0x0601, "rsa_pkcs1_sha512", "sha512"),
)
BY_CODE = {scheme.code: scheme for scheme in _ALL}
BY_NAME = {scheme.name: scheme for scheme in _ALL}

# In TLS 1.3 an ECDSA scheme fixes the curve, and RSA is PSS. Short hash first (BoringSSL's and Go's order).
_TLS13 = {
    "p256": (0x0403,),
    "p384": (0x0503,),
    "ed25519": (0x0807,),
    "rsa2048": (0x0804, 0x0805, 0x0806),
    "rsa3072": (0x0804, 0x0805, 0x0806),
    "rsa4096": (0x0804, 0x0805, 0x0806),
}
# TLS 1.2 allows more: there an ECDSA scheme names only the hash (RFC 8422, 5.1.3), and some clients offer one that is
# not the curve's own. The curve's own comes first.
_ONLY_TLS12 = {
    "p256": (0x0503, 0x0603),
    "p384": (0x0403, 0x0603),
    "ed25519": (),
    "rsa2048": (0x0401, 0x0501, 0x0601),
    "rsa3072": (0x0401, 0x0501, 0x0601),
    "rsa4096": (0x0401, 0x0501, 0x0601),
}


def schemes_for(algorithm: str, usage: str) -> tuple[int, ...]:
    """What a key of this algorithm signs within its usage, best first. KeyError for an unknown algorithm."""
    return _TLS13[algorithm] + (_ONLY_TLS12[algorithm] if usage != "tls13" else ())
