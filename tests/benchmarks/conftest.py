"""Servers to aim the load tools at: OpenSSL's s_server, and a gRPC server that signs with `cryptography`."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deploy.load import tools
from deploy.node.certificates import named, unsigned

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class KeyPair:
    """A self-signed certificate for localhost, and its key."""

    key: PrivateKey
    certificate_path: Path
    key_path: Path

    @property
    def key_id(self) -> bytes:
        encoded = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        digest = hashes.Hash(hashes.SHA256())
        digest.update(encoded)
        return digest.finalize()


def make_pair(folder: Path, name: str, key: PrivateKey) -> KeyPair:
    subject, names = named("localhost"), [x509.DNSName("localhost")]
    certificate = unsigned(subject, subject, key.public_key(), is_ca=True, names=names).sign(key, hashes.SHA256())
    pair = KeyPair(key, folder / f"{name}.pem", folder / f"{name}.key")
    pair.certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pair


@pytest.fixture(scope="session")
def rsa_pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_pair(tmp_path_factory.mktemp("rsa"), "rsa", rsa.generate_private_key(65537, 2048))


@pytest.fixture(scope="session")
def ec_pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_pair(tmp_path_factory.mktemp("ec"), "ec", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="session", autouse=True)
def built_tools() -> None:
    """Without the tools there is nothing to test here: that is an error, not a reason to skip."""
    tools.find("tlsload")
    tools.find("keyload")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_accepting(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server on port {port} ended with status {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nothing accepts on port {port} after 10 s")


StartServer = Callable[..., str]


@pytest.fixture
def tls_server() -> Iterator[StartServer]:
    """Starts `openssl s_server` with a key pair and more arguments; gives host:port."""
    running: list[subprocess.Popen[bytes]] = []

    def start(pair: KeyPair, *arguments: str) -> str:
        port = free_port()
        line = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-www", "-quiet"]
        line += ["-cert", str(pair.certificate_path), "-key", str(pair.key_path), *arguments]
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        running.append(process)
        wait_until_accepting(port, process)
        return f"127.0.0.1:{port}"

    yield start
    for process in running:
        process.kill()
        process.wait()
