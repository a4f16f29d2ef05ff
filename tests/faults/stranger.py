"""Somebody who may not use a key, and asks for it all the time."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2_grpc
from tests.offload.daemon_process import sign_request, status_of

EVERY_S = 0.1
DEADLINE_S = 2.0


class Stranger:
    """Same user as everybody else here, but another program than the identity's selectors name."""

    def __init__(self, socket: Path, certificate: Path) -> None:
        self._socket, self._certificate = socket, certificate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: dict[grpc.StatusCode, int] = {}

    def start(self) -> None:
        """And waits until it has been refused."""
        self._thread.start()
        wait_for("the stranger to be refused", lambda: grpc.StatusCode.NOT_FOUND in self.answers)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        assert grpc.StatusCode.OK not in self.answers, f"a stranger got signatures: {self.answers}"

    def _key_id(self) -> bytes:
        certificate = x509.load_pem_x509_certificate(self._certificate.read_bytes())
        digest = Hash(SHA256())
        digest.update(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        return digest.finalize()

    def _run(self) -> None:
        key_id = self._key_id()
        while True:
            with contextlib.suppress(OSError, ValueError):  # it is being replaced: the one before will do
                key_id = self._key_id()
            with grpc.insecure_channel(f"unix:{self._socket}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub = private_key_pb2_grpc.PrivateKeyServiceStub(channel)
                request = sign_request(key_id, 0x0403)
                answer = status_of(lambda: stub.Sign(request, timeout=DEADLINE_S))  # noqa: B023
            self.answers[answer] = self.answers.get(answer, 0) + 1
            if self._stop.wait(EVERY_S):
                return
