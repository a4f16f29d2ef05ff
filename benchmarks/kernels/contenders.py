"""The contenders. Each runs one batch and returns how long it took; it is created once per algorithm.

ours        the 8-lane kernels, called from C, with the check of every result before release
crypto_mb   Intel's 8-lane kernels, called from C, without a check; its speed depends on the alignment of the stack, so
            a page is swept in steps of 16 bytes, the best shifts run in every round, and the best of all counts
boringssl   our software backend, called from C: what stock Envoy would run
openssl     OpenSSL through `cryptography`, called from Python (about 1 us per call is Python's)
libcrypto   the system's libcrypto through ctypes, where there is one
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks import crypto_mb

ALGORITHMS = ("rsa2048", "rsa3072", "rsa4096", "p256", "p384", "ed25519")
LANES = 8
STACK_SHIFTS = range(0, 4096, 16)
BEST_SHIFTS = 16
ROOT = Path(__file__).resolve().parents[2]


class Unavailable(RuntimeError):
    """The contender cannot run here; the message says why."""


class Contender(Protocol):
    name: str
    batches: tuple[int, ...]  # sizes of batch that it can be asked for

    def run(self, count: int, repeats: int) -> float:
        """Microseconds of the fastest of `repeats` batches of `count` operations."""


# From C


@cache
def bench_library() -> ctypes.CDLL:
    folder = os.environ.get("LOAD_TOOLS")
    path = (Path(folder) if folder else ROOT / "build" / "native" / "benchmarks" / "native") / "libkernelbench.so"
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"{path} is missing: make build ({error})") from error
    lib.kernelbench_new.restype = ctypes.c_void_p
    lib.kernelbench_new.argtypes = [ctypes.c_char_p]
    lib.kernelbench_ours.restype = lib.kernelbench_crypto_mb.restype = ctypes.c_int64
    lib.kernelbench_ours.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint]
    lib.kernelbench_multiplications_per_us.restype = lib.kernelbench_additions_per_us.restype = ctypes.c_double
    lib.kernelbench_additions_per_us.argtypes = [ctypes.c_uint]
    lib.kernelbench_plan.restype = ctypes.c_char_p
    lib.kernelbench_plan.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    lib.kernelbench_lone.restype = ctypes.c_int64
    lib.kernelbench_lone.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p]
    lib.kernelbench_before.argtypes = [ctypes.c_uint, ctypes.c_uint]
    lib.kernelbench_multiplications_per_us.argtypes = [ctypes.c_uint, ctypes.c_uint]
    lib.kernelbench_crypto_mb.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint]
    return lib


@cache
def bench_for(algorithm: str) -> int:
    """Eight keys and inputs in C memory, shared by the contenders there. Lives as long as the process."""
    handle: int | None = bench_library().kernelbench_new(algorithm.encode())
    if handle is None:
        raise Unavailable(f"no keys for {algorithm}: is memory locked to its limit (ulimit -l)?")
    return handle


def plan(algorithm: str) -> dict[str, Any] | None:
    """What our kernels chose for this processor (kernels/ifma8/rsa_ifma8_plan.h); None where they choose nothing."""
    text: bytes = bench_library().kernelbench_plan(algorithm.encode(), b"ifma8")
    return json.loads(text) if text else None


def microseconds(nanoseconds: int, what: str) -> float:
    if nanoseconds == -1:
        raise Unavailable(f"{what} cannot run here")
    if nanoseconds < 0:
        raise RuntimeError(f"{what} gave a wrong result")
    return nanoseconds / 1000


class OurKernels:
    batches = tuple(range(1, LANES + 1))

    def __init__(self, name: str, backend: str, algorithm: str) -> None:
        self.name, self._backend, self._algorithm = name, backend, algorithm
        self.run(1, 1)

    def run(self, count: int, repeats: int) -> float:
        time_ns = bench_library().kernelbench_ours(bench_for(self._algorithm), self._backend.encode(), count, repeats)
        return microseconds(time_ns, f"{self._backend} {self._algorithm}")


class CryptoMb:
    name: str = "crypto_mb"
    batches: tuple[int, ...] = (LANES,)

    def __init__(self, algorithm: str) -> None:
        path = crypto_mb.library_path()
        if path is None:
            raise Unavailable("crypto_mb is not installed: pip install .[bench]")
        try:
            crypto_mb.library()
        except OSError as error:
            raise Unavailable(str(error)) from error
        self._path, self._algorithm = str(path).encode(), algorithm
        swept = {shift: min(self._time(shift, 2), self._time(shift, 2)) for shift in STACK_SHIFTS}
        # On a busy machine a sweep errs, so the first shifts stay in too.
        self._shifts = {*sorted(swept, key=swept.__getitem__)[:BEST_SHIFTS], *STACK_SHIFTS[:BEST_SHIFTS]}

    def run(self, count: int, repeats: int) -> float:
        assert count == LANES
        return min(self._time(shift, max(1, repeats // 2)) for shift in self._shifts)

    def _time(self, shift: int, repeats: int) -> float:
        bench = bench_for(self._algorithm)
        time_ns = bench_library().kernelbench_crypto_mb(bench, self._path, shift, repeats)
        return microseconds(time_ns, f"crypto_mb {self._algorithm}")


# From Python

Sign = Callable[[], object]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
DIGESTS = {"p384": hashes.SHA384()}


@cache
def python_keys(algorithm: str) -> list[PrivateKey]:
    def make() -> PrivateKey:
        if algorithm.startswith("rsa"):
            return rsa.generate_private_key(65537, int(algorithm[3:]))
        if algorithm == "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        return ec.generate_private_key(ec.SECP256R1() if algorithm == "p256" else ec.SECP384R1())

    return [make() for _ in range(LANES)]


class Signers:
    """One callable per key; a batch of n uses the first n of them, one after the other."""

    batches = tuple(range(1, LANES + 1))
    name: str
    signers: list[Sign]

    def run(self, count: int, repeats: int) -> float:
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter_ns()
            for sign in self.signers[:count]:
                sign()
            best = min(best, time.perf_counter_ns() - start)
        return best / 1000


class OpenSsl(Signers):
    name = "openssl"

    def __init__(self, algorithm: str) -> None:
        digest = DIGESTS.get(algorithm, hashes.SHA256())
        message = bytes(130) if algorithm == "ed25519" else bytes(digest.digest_size)
        self.signers = [self._signer(key, message, digest) for key in python_keys(algorithm)]

    @staticmethod
    def _signer(key: PrivateKey, message: bytes, digest: hashes.HashAlgorithm) -> Sign:
        if isinstance(key, rsa.RSAPrivateKey):
            scheme, hashed = padding.PKCS1v15(), utils.Prehashed(digest)
            return lambda: key.sign(message, scheme, hashed)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            ecdsa = ec.ECDSA(utils.Prehashed(digest))
            return lambda: key.sign(message, ecdsa)
        return lambda: key.sign(message)


class Libcrypto(Signers):
    """EVP_PKEY_sign, or EVP_DigestSign for Ed25519, of the system's OpenSSL."""

    name = "libcrypto"

    def __init__(self, algorithm: str) -> None:
        self._lib = system_libcrypto()
        self._algorithm = algorithm
        self.signers = [self._signer(key) for key in python_keys(algorithm)]
        for sign in self.signers:
            if sign() != 1:
                raise Unavailable(f"the system's libcrypto does not sign with {algorithm}")

    def _signer(self, key: PrivateKey) -> Sign:
        lib = self._lib
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        pointer = ctypes.c_char_p(der)
        pkey = ctypes.c_void_p(lib.d2i_AutoPrivateKey(None, ctypes.byref(pointer), len(der)))
        output, size = ctypes.create_string_buffer(512), ctypes.c_size_t()
        message = bytes({"p384": 48, "ed25519": 130}.get(self._algorithm, 32))

        if self._algorithm == "ed25519":

            def digest_sign() -> int:
                context = ctypes.c_void_p(lib.EVP_MD_CTX_new())
                size.value = len(output)
                good = lib.EVP_DigestSignInit(context, None, None, None, pkey)
                good = good and lib.EVP_DigestSign(context, output, ctypes.byref(size), message, len(message))
                lib.EVP_MD_CTX_free(context)
                return int(good)

            return digest_sign

        context = ctypes.c_void_p(lib.EVP_PKEY_CTX_new(pkey, None))
        lib.EVP_PKEY_sign_init(context)

        def sign() -> int:
            size.value = len(output)
            return int(lib.EVP_PKEY_sign(context, output, ctypes.byref(size), message, len(message)))

        return sign


@cache
def system_libcrypto() -> ctypes.CDLL:
    name = ctypes.util.find_library("crypto")
    if name is None:
        raise Unavailable("the system has no libcrypto")
    lib = ctypes.CDLL(name)
    for function in ("d2i_AutoPrivateKey", "EVP_PKEY_CTX_new", "EVP_MD_CTX_new"):
        getattr(lib, function).restype = ctypes.c_void_p
    lib.OpenSSL_version.restype = ctypes.c_char_p
    lib.EVP_PKEY_sign.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_char_p, ctypes.c_size_t]
    lib.EVP_DigestSign.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_char_p, ctypes.c_size_t]
    return lib


MAKERS: dict[str, Callable[[str], Contender]] = {
    "ours": lambda algorithm: OurKernels("ours", "ifma8", algorithm),
    "crypto_mb": CryptoMb,
    "boringssl": lambda algorithm: OurKernels("boringssl", "software", algorithm),
    "openssl": OpenSsl,
    "libcrypto": Libcrypto,
}


def available(algorithm: str) -> Iterator[Contender | tuple[str, str]]:
    """Each contender, or its name and the reason why it cannot run."""
    for name, make in MAKERS.items():
        try:
            yield make(algorithm)
        except Unavailable as missing:
            yield name, str(missing)
