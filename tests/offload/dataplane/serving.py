"""A running DataPlane for tests, what TLS signs, and the check of signatures."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from offload.v1 import private_key_pb2, private_key_pb2_grpc

if TYPE_CHECKING:
    from offload._dataplane import DataPlane, IdentityRule, Key, KeyRule, Selector, Settings

SPACES = b" " * 64
SERVER_CONTEXT = b"TLS 1.3, server CertificateVerify\0"
CLIENT_CONTEXT = b"TLS 1.3, client CertificateVerify\0"

RSA_PSS_SHA256 = 0x0804
RSA_PKCS1_SHA256 = 0x0401
ECDSA_P256 = 0x0403
ECDSA_P384 = 0x0503
ED25519 = 0x0807
SCHEMES = {
    "rsa2048": RSA_PSS_SHA256,
    "rsa3072": RSA_PSS_SHA256,
    "rsa4096": RSA_PSS_SHA256,
    "p256": ECDSA_P256,
    "p384": ECDSA_P384,
    "ed25519": ED25519,
}


def tls13_input(seed: int = 0) -> bytes:
    """What a TLS 1.3 server signs; different for every seed."""
    return SPACES + SERVER_CONTEXT + seed.to_bytes(32, "big")


def verify(public_key_der: bytes, scheme: int, signature: bytes, signed: bytes) -> None:
    """Raises InvalidSignature unless OpenSSL accepts the signature."""
    public = load_der_public_key(public_key_der)
    if isinstance(public, rsa.RSAPublicKey):
        digest: dict[int, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
            1: hashes.SHA256,
            2: hashes.SHA384,
            3: hashes.SHA512,
        }
        if scheme >> 8 == 8:
            algorithm = digest[(scheme & 0xFF) - 3]()
            public.verify(signature, signed, padding.PSS(padding.MGF1(algorithm), algorithm.digest_size), algorithm)
        else:
            public.verify(signature, signed, padding.PKCS1v15(), digest[(scheme >> 8) - 3]())
    elif isinstance(public, ec.EllipticCurvePublicKey):
        hash_of = {ECDSA_P256: hashes.SHA256, ECDSA_P384: hashes.SHA384}
        public.verify(signature, signed, ec.ECDSA(hash_of[scheme]()))
    else:
        assert isinstance(public, ed25519.Ed25519PublicKey)
        public.verify(signature, signed)


@dataclass
class Server:
    """A data plane behind one or more sockets in a folder of its own."""

    data_plane: DataPlane
    folder: Path
    keys: dict[str, Key]
    listeners: dict[str, socket.socket] = field(default_factory=dict)

    def listen(self, name: str) -> Path:
        path = self.folder / name
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1024)
        self.data_plane.add_listener(name, listener.fileno())
        self.listeners[name] = listener
        return path

    def target(self, name: str = "main") -> str:
        return f"unix:{self.folder / name}"

    def path(self, name: str = "main") -> str:
        return str(self.folder / name)

    @contextlib.contextmanager
    def stub(self, name: str = "main", **options: Any) -> Iterator[private_key_pb2_grpc.PrivateKeyServiceStub]:
        # A channel of its own each time: grpcio shares connections between equal channels otherwise.
        settings = [("grpc.use_local_subchannel_pool", 1), *options.items()]
        with grpc.insecure_channel(self.target(name), options=settings) as channel:
            yield private_key_pb2_grpc.PrivateKeyServiceStub(channel)

    def connect(self, name: str = "main") -> socket.socket:
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(self.path(name))  # without a timeout: with one it fails at once where the queue is full
        raw.settimeout(20)
        return raw

    def operations(self, algorithm: str) -> dict[tuple[str, str], int]:
        for statistics in self.data_plane.statistics()["classes"]:
            if statistics["algorithm"] == algorithm:
                return dict(statistics["operations"])
        raise AssertionError(algorithm)

    def close(self) -> None:
        self.data_plane.stop()
        for listener in self.listeners.values():
            listener.close()


DEFAULTS: Settings = {
    "shards": 2,
    "max_wait_us": 0,
    "queue_limit": 4096,
    "connection_queue_limit": 1024,
    "user_queue_limit": 3072,
    "max_connections": 4096,
    "max_connections_per_user": 2048,
    "max_connections_without_identity": 512,
    "user_memory_mib": 32,
    "idle_timeout_ms": 300_000,
    "stalled_timeout_ms": 30_000,
    "max_streams_per_connection": 1024,
    "drain_timeout_ms": 5000,
    "backend": "auto",
}


def everyone() -> list[Selector]:
    return [{"uid": os.getuid()}]


def identity(
    name: str, keys: Sequence[KeyRule], selectors: Sequence[Selector] | None = None, version: int = 1
) -> IdentityRule:
    message = private_key_pb2.Identity(name=name, version=version)
    for rule in keys:
        message.credentials.add(key_id=rule["key"].key_id, certificate_chain=[b"certificate"])
    return {
        "name": name,
        "selectors": everyone() if selectors is None else selectors,
        "keys": keys,
        "message": message.SerializeToString(),
    }


def why_turned_away(raw: socket.socket) -> str:
    """The reason that a client is told whose connection is not served: a GOAWAY frame, then the end."""
    frame = b""
    while piece := raw.recv(1000):
        frame += piece
    assert frame[3] == 7, "GOAWAY"
    return frame[17:].decode()
