"""A small gRPC server of offload.v1 that signs with `cryptography`: what keyload is tested against.

Independent of the daemon: stock grpcio, stock OpenSSL. It answers each message of a stream with one message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from offload.v1 import private_key_pb2 as messages
from offload.v1 import private_key_pb2_grpc as services

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]


def sign(key: PrivateKey, data: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
        return key.sign(data, pss, hashes.SHA256())
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


class Signer(services.PrivateKeyServiceServicer):
    """`spoil` flips a bit of each signature; `hang_up_after` ends a stream after that many messages."""

    def __init__(self, keys: dict[bytes, PrivateKey]) -> None:
        self.keys = keys
        self.inputs: list[bytes] = []
        self.message_sizes: list[int] = []
        self.spoil = False
        self.hang_up_after: int | None = None

    def signature(self, key_id: bytes, data: bytes) -> bytes:
        self.inputs.append(data)
        signature = bytearray(sign(self.keys[key_id], data))
        if self.spoil:
            signature[-1] ^= 1
        return bytes(signature)

    def Sign(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.key_id not in self.keys:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such key")
        signature = self.signature(request.key_id, request.input)
        return messages.SignResponse(signature=signature, backend=messages.BACKEND_SOFTWARE, batch_size=1)

    def Stream(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for number, batch in enumerate(requests):
            if number == self.hang_up_after:
                context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
            size = len(batch.operations)
            self.message_sizes.append(size)
            answer = messages.ResultBatch()
            for operation in reversed(batch.operations):  # any order is allowed
                result = answer.results.add(id=operation.id, backend=messages.BACKEND_IFMA8, batch_size=min(size, 8))
                result.run_us = 100 * min(size, 8)
                if operation.key_id in self.keys:
                    result.output = self.signature(operation.key_id, operation.input)
                else:
                    result.status, result.message = NOT_FOUND, "no such key"
            yield answer


@contextlib.contextmanager
def serving(keys: dict[bytes, PrivateKey], path: Path) -> Iterator[Signer]:
    signer = Signer(keys)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    services.add_PrivateKeyServiceServicer_to_server(signer, server)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield signer
    finally:
        server.stop(None).wait()
