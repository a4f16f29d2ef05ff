"""Batches of up to 8 private-key operations: 8-lane AVX-512 IFMA where the CPU has it, BoringSSL elsewhere.

    import numpy as np
    from kernels import Key, Scheme, sign_messages

    keys = [Key.load(path) for path in paths]
    result = sign_messages(Scheme.RSA_PSS_SHA256, keys, messages)   # any number; runs 8 at a time, without the GIL
    result.as_bytes()

The daemon's hot path calls the C below this directly; this face serves tests, benchmarks and library users.
"""

from enum import IntEnum

from kernels._kernels import (
    ALGORITHMS,
    LANES,
    Backend,
    InvalidKey,
    Key,
    Outcome,
    Signatures,
    backend_for,
    backends,
    decrypt,
    ecdsa_sign,
    ed25519_sign,
    faults,
    rsa_private,
    scheme_fits,
    secret_memory,
    sign_messages,
)


class Status(IntEnum):
    """Status of one lane of a kernel (kernel_status in kernels.h)."""

    OK = 0
    BAD_SIZE = 1
    BAD_RANGE = 2
    FAULT = 3
    BAD_KEY = 4


class SignStatus(IntEnum):
    """Status of one signature or decryption (sign_status in sign.h)."""

    OK = 0
    BAD_SCHEME = 1
    BAD_INPUT = 2
    FAULT = 3


class Scheme(IntEnum):
    """The supported TLS SignatureScheme code points (RFC 8446, 4.2.3)."""

    RSA_PKCS1_SHA256 = 0x0401
    RSA_PKCS1_SHA384 = 0x0501
    RSA_PKCS1_SHA512 = 0x0601
    ECDSA_P256_SHA256 = 0x0403
    ECDSA_P384_SHA384 = 0x0503
    ECDSA_P521_SHA512 = 0x0603
    RSA_PSS_SHA256 = 0x0804
    RSA_PSS_SHA384 = 0x0805
    RSA_PSS_SHA512 = 0x0806
    ED25519 = 0x0807


__all__ = [
    "ALGORITHMS",
    "LANES",
    "Backend",
    "InvalidKey",
    "Key",
    "Outcome",
    "Scheme",
    "SignStatus",
    "Signatures",
    "Status",
    "backend_for",
    "backends",
    "decrypt",
    "ecdsa_sign",
    "ed25519_sign",
    "faults",
    "rsa_private",
    "scheme_fits",
    "secret_memory",
    "sign_messages",
]
