"""Intel's crypto_mb, from the package ipp-crypto: where its library is, and its RSA as a callable."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

LANES = 8

# From the package intel-cmplr-lib-rt, in the order in which they need each other.
RUNTIME = ("libintlc.so.5", "libirng.so", "libimf.so", "libsvml.so")


def library_path() -> Path | None:
    """libcrypto_mb.so of this environment (pip install .[bench]), or None."""
    path = Path(sys.prefix) / "lib" / "libcrypto_mb.so"
    return path if path.is_file() else None


def version() -> str | None:
    try:
        return metadata.version("ipp-crypto")
    except metadata.PackageNotFoundError:
        return None


def library() -> ctypes.CDLL:
    """Raises OSError if it is not installed. Its Intel runtime is loaded first: it is not on the search path."""
    path = library_path()
    if path is None:
        raise OSError(f"{sys.prefix}/lib/libcrypto_mb.so is not there")
    for name in RUNTIME:
        runtime = path.parent / name
        if runtime.is_file():
            ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(path))


class RsaPrivate:
    """input^d mod n of eight keys of one size, by CRT, without a check of the result."""

    def __init__(self, lib: ctypes.CDLL, keys: Sequence[RSAPrivateKey]) -> None:
        if len(keys) != LANES:
            raise ValueError("eight keys")
        self.bits = keys[0].key_size
        lib.mbx_RSA_private_crt_Method.restype = ctypes.c_void_p
        self._method = ctypes.c_void_p(lib.mbx_RSA_private_crt_Method(self.bits))
        self._scratch = ctypes.create_string_buffer(lib.mbx_RSA_Method_BufSize(self._method) + 64)
        self._run = lib.mbx_rsa_private_crt_mb8
        numbers = [k.private_numbers() for k in keys]
        half = self.bits // 16
        self._parts = [
            self._lanes([getattr(n, part).to_bytes(half, "little") for n in numbers])
            for part in ("p", "q", "dmp1", "dmq1", "iqmp")
        ]

    @staticmethod
    def _lanes(values: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
        return (ctypes.c_char_p * LANES)(*values)

    def __call__(self, inputs: Sequence[bytes]) -> list[bytes]:
        """Big-endian blocks below the moduli, and so are the results. Raises RuntimeError if it reports an error."""
        results = [ctypes.create_string_buffer(self.bits // 8) for _ in range(LANES)]
        to = (ctypes.c_void_p * LANES)(*(ctypes.addressof(r) for r in results))
        status = self._run(self._lanes(inputs), to, *self._parts, self.bits, self._method, self._scratch)
        if status != 0:
            raise RuntimeError(f"mbx_rsa_private_crt_mb8 reports {status:#x}")
        return [r.raw for r in results]
