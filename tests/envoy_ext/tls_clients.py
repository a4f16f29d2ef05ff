"""TLS clients for the tests: Python's ssl, curl, and the native load generator."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from deploy.load import tools

TIMEOUT = 20.0


@dataclass(frozen=True)
class Client:
    """Makes connections to one listener. `ca` verifies the server's chain and name."""

    port: int
    ca: Path
    name: str | None = "web.test"

    def context(
        self,
        version: ssl.TLSVersion | None = None,
        ciphers: str | None = None,
        alpn: Sequence[str] = (),
        certificate: Path | None = None,
        verify: bool = True,
    ) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if ciphers is not None:
            context.set_ciphers(ciphers)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if certificate is not None:
            context.load_cert_chain(certificate)
        if not verify or self.name is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def raw(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or a request waits 40 ms behind Finished
        return connection

    def connect(self, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        return (context or self.context()).wrap_socket(
            self.raw(), server_hostname=self.name, session=session, suppress_ragged_eofs=False
        )

    def get(self, connection: ssl.SSLSocket, path: str = "/") -> bytes:
        """One HTTP/1.1 request; the whole answer, head and body. Empty when the server closed instead.

        The answer ends by its length: Envoy leaves the closing to the client for up to a second.
        """
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {self.name or 'localhost'}\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            if not (piece := connection.recv(65536)):
                return received
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))
        missing = int(length.split()[1]) - len(body)
        while missing > 0 and (piece := connection.recv(missing)):
            received += piece
            missing -= len(piece)
        return received

    def curl(self, *arguments: str | Path, path: str = "/") -> subprocess.CompletedProcess[bytes]:
        name = self.name or "localhost"
        line = ["curl", "--silent", "--show-error", "--max-time", "60", "--cacert", str(self.ca)]
        line += [
            "--resolve",
            f"{name}:{self.port}:127.0.0.1",
            *map(str, arguments),
            f"https://{name}:{self.port}{path}",
        ]
        return subprocess.run(line, capture_output=True, check=False, timeout=90)

    def load(self, **options: tools.Argument) -> dict[str, Any]:
        """tlsload against the listener: its report. Failures are in the report, not raised."""
        line = tools.command("tlsload", options, [f"127.0.0.1:{self.port}"])
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode in (0, 1), done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report


def leaf_of(connection: ssl.SSLSocket) -> x509.Certificate:
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def key_type_of(connection: ssl.SSLSocket) -> str:
    key = leaf_of(connection).public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519"
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.curve.name


def common_name(connection: ssl.SSLSocket) -> str:
    value = leaf_of(connection).subject.rfc4514_string()
    return value.removeprefix("CN=")
