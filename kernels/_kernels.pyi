"""Batches of private-key operations on NumPy arrays; keys are handles, their bytes never cross.

Any number of operations may be given; they run in batches of up to `LANES` with the GIL released. Arrays are uint8,
C-contiguous, and are read and written in place, without a copy. Every function that takes `keys` takes one key for all
operations or one per operation; all must have the algorithm of the first, others get the status `BAD_KEY`.
`backend` is the name of one of `backends()`; None selects the best one for the algorithm.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

Bytes = NDArray[np.uint8]

ALGORITHMS: tuple[str, ...]
LANES: int

class InvalidKey(ValueError):
    """A key that cannot be used; the message names the file and the reason, and never shows key material."""

class Backend(NamedTuple):
    name: str
    description: str
    usable: bool
    algorithms: tuple[str, ...]

class Outcome(NamedTuple):
    """The result of a batch. A row of `outputs` is written only if its `status` is 0."""

    outputs: Bytes
    status: Bytes  # kernels.Status or kernels.SignStatus per operation
    redone: NDArray[np.bool_]  # the vector result failed its check; software computed this one

class Signatures(NamedTuple):
    """Encoded signatures: the first `sizes[i]` bytes of row i."""

    outputs: Bytes
    sizes: NDArray[np.intp]
    status: Bytes  # kernels.SignStatus
    redone: NDArray[np.bool_]
    def as_bytes(self) -> list[bytes | None]: ...

class Key:
    """A private key in secret memory. Immutable; usable by any number of threads; wiped with its last reference."""

    @staticmethod
    def load(path: str | PathLike[str]) -> Key:
        """Reads PEM or DER (PKCS#8, PKCS#1, SEC1; not encrypted) natively. Raises InvalidKey with file and reason."""
    @staticmethod
    def generate(algorithm: str) -> Key: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def key_id(self) -> bytes:
        """SHA-256 of the DER SubjectPublicKeyInfo."""
    @property
    def public_key_der(self) -> bytes:
        """DER SubjectPublicKeyInfo."""

Keys = Key | Sequence[Key]

def rsa_private(keys: Keys, inputs: Bytes, backend: str | None = None, outputs: Bytes | None = None) -> Outcome:
    """Bare RSA: input^d mod n. `inputs` and outputs are (operations, bytes of the modulus), big-endian."""

def ecdsa_sign(keys: Keys, digests: Bytes, backend: str | None = None, outputs: Bytes | None = None) -> Outcome:
    """Digests (operations, 32 or 48) to r then s (operations, 64 or 96), big-endian."""

def ed25519_sign(
    keys: Keys, messages: Sequence[Buffer] | Bytes, backend: str | None = None, outputs: Bytes | None = None
) -> Outcome:
    """Messages of any length to signatures (operations, 64), RFC 8032."""

def sign_messages(
    scheme: int, keys: Keys, messages: Sequence[Buffer] | Bytes, backend: str | None = None, prehashed: bool = False
) -> Signatures:
    """TLS signatures: hash and encode as the SignatureScheme (RFC 8446, 4.2.3) says, and sign."""

def decrypt(keys: Keys, ciphertexts: Sequence[Buffer] | Bytes, backend: str | None = None) -> Outcome:
    """RSA PKCS#1 v1.5 to 48-byte TLS premaster secrets, with implicit rejection (invalid padding is not an error)."""

def scheme_fits(scheme: int, algorithm: str, tls12: bool = False) -> bool: ...
def backends() -> list[Backend]:
    """All backends, the preferred one first."""

def backend_for(algorithm: str) -> str:
    """The name of the backend that `backend=None` selects."""

def faults(algorithm: str) -> int:
    """Lanes whose vector result failed its check since the process started."""

def secret_memory() -> dict[str, Any]:
    """kind ("memfd_secret", "mlock", "unlocked"), used, reserved (bytes)."""
