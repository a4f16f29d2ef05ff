"""Cipher suites: whoever offers nothing but a weak one, or one without forward secrecy, is refused."""

from __future__ import annotations

from tlslite.constants import CipherSuite

from tests.conformance.check import checks
from tests.conformance.client import talk
from tests.conformance.hello import offering

REFUSED = "alert handshake_failure"

WEAK = {
    "no encryption (NULL)": (0x0001, 0x0002, 0x003B, 0xC006, 0xC010, 0xC0B4),
    "no authentication (anonymous)": (0x0018, 0x001B, 0x0034, 0x006C, 0x00A6, 0xC016, 0xC018, 0xC019),
    "export grade": (0x0003, 0x0006, 0x0008, 0x000B, 0x0011, 0x0014, 0x0017, 0x0019, 0x0062, 0x0064),
    "RC4": (0x0004, 0x0005, 0xC007, 0xC011),
    "DES and IDEA": (0x0007, 0x0009, 0x0012, 0x0015),
    "3DES": (0x000A, 0x0013, 0x0016, 0xC008, 0xC012),
    "SEED, Camellia, ARIA": (0x0096, 0x009A, 0x0041, 0x0084, 0x0088, 0xC03C, 0xC04C, 0xC050),
    "finite-field Diffie-Hellman": (0x0033, 0x0039, 0x0067, 0x006B, 0x009E, 0x009F, 0xCCAA),
    "static ECDH": (0xC004, 0xC005, 0xC00E, 0xC00F, 0xC02D, 0xC031),
    "RSA key exchange": (0x002F, 0x0035, 0x003C, 0x003D, 0x009C, 0x009D),
    "ECDHE with CBC": (0xC009, 0xC00A, 0xC013, 0xC014, 0xC023, 0xC027, 0xC028),
    "pre-shared keys": (0x008C, 0x00A8, 0xC035, 0xCCAC),
    "only signalling values": (0x00FF,),
}
AUTHENTICATED = {"rsa2048": "RSA", "p256": "ECDSA"}


def _suite(name: str) -> dict[str, int]:
    return {kind: getattr(CipherSuite, name.replace("*", kind)) for kind in AUTHENTICATED.values()}


STRONG = (
    "TLS_ECDHE_*_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_*_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_*_WITH_CHACHA20_POLY1305_SHA256",
)
STRONG13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")

# A P-256 certificate needs its curve among the groups of TLS 1.2, where they say for signatures too.
EXTRA = {"1.2": ["secp256r1"], "1.3": []}

CHECKS = checks(
    "ciphers",
    *((f"only {name}", "RFC 9325 4.1, 4.2", REFUSED, offering("1.2", suites)) for name, suites in WEAK.items()),
    ("only CCM with short tags, TLS 1.3", "RFC 8446 B.4", REFUSED, offering("1.3", (0x1304, 0x1305))),
    ("only integrity, TLS 1.3", "RFC 9150 8", REFUSED, offering("1.3", (0xC0B4, 0xC0B5))),
    ("suites of TLS 1.2 with TLS 1.3", "RFC 8446 4.1.1", REFUSED, offering("1.3", (0xC02B, 0xC02F))),
    ("suites of TLS 1.3 with TLS 1.2", "RFC 8446 4.1.1", REFUSED, offering("1.2", (0x1301, 0x1302, 0x1303))),
    *(
        (
            f"{name}",
            "RFC 9325 4.2",
            "TLS 1.2",
            lambda target, name=name: offering("1.2", (_suite(name)[AUTHENTICATED[target.key]],))(target),
        )
        for name in STRONG
    ),
    *((name, "RFC 8446 9.1", "TLS 1.3", offering("1.3", (getattr(CipherSuite, name),))) for name in STRONG13),
    *(
        (
            f"{group}, TLS {version}",
            "RFC 8446 9.1",
            f"TLS {version}",
            lambda target, group=group, version=version: talk(
                target, version, keyShares=[group] if version == "1.3" else [], eccCurves=[group, *EXTRA[version]]
            ),
        )
        for version in ("1.2", "1.3")
        for group in ("x25519", "secp256r1")
    ),
)
