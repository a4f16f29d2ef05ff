"""kernels._kernels over a library with testing hooks: known nonces, injected faults, poisoned lanes. Tests only."""

from collections.abc import Sequence

from typing_extensions import Buffer

from kernels._kernels import ALGORITHMS as ALGORITHMS
from kernels._kernels import LANES as LANES
from kernels._kernels import Bytes, Keys, Outcome
from kernels._kernels import InvalidKey as InvalidKey
from kernels._kernels import Key as Key
from kernels._kernels import backend_for as backend_for
from kernels._kernels import backends as backends
from kernels._kernels import decrypt as decrypt
from kernels._kernels import ecdsa_sign as ecdsa_sign
from kernels._kernels import ed25519_sign as ed25519_sign
from kernels._kernels import faults as faults
from kernels._kernels import rsa_private as rsa_private
from kernels._kernels import scheme_fits as scheme_fits
from kernels._kernels import secret_memory as secret_memory
from kernels._kernels import sign_messages as sign_messages

FAULT_PLACES: dict[str, int]
ANY_LANE: int

def inject_fault(algorithm: str, lane: int, place: str, bit: int) -> None:
    """Arms a fault; see kernels/testing_hooks.h."""

def clear_faults() -> int:
    """Disarms all; returns how many had not struck."""

def force_rsa_way(name: str | None) -> None:
    """Sends all RSA operations of the vector backends one way (kernels/ifma8/rsa_ifma8_plan.h); None ends it."""

def force_rsa_products(name: str | None) -> None:
    """Makes the products of all RSA operations of the vector backends one way (montgomery_products.h); None ends it."""

def multiplications() -> int:
    """Number of 52-bit multiplications in eight lanes, by the portable vector kernels in this thread, so far."""

def vector_instructions() -> int:
    """Number of all vector instructions but loads, stores, copies and constants, counted the same way."""

def known_nonces(nonces: Bytes | None) -> None: ...
def nonce_from_wide(algorithm: str, wide: Buffer) -> int: ...
def derived_nonces(keys: Keys, digests: Bytes) -> list[int]: ...
def run_poisoned(keys: Keys, messages: Sequence[Buffer] | Bytes, backend: str, poison: int) -> Outcome: ...
def pkcs1_block(hash_name: str, digest: Buffer, size: int) -> bytes: ...
def pss_block(hash_name: str, digest: Buffer, salt: Buffer, size: int) -> bytes: ...
def unpad_premaster(key: Key, ciphertext: Buffer, block: Buffer) -> bytes: ...
def ecdsa_der(pair: Buffer) -> bytes: ...

class SecretBlock:
    asked: int
    def __init__(self, size: int) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def size(self) -> int: ...
    def read(self) -> bytes: ...
    def fill(self, byte: int) -> None: ...

def churn(seed: int, rounds: int, slots: int, largest: int) -> int: ...
