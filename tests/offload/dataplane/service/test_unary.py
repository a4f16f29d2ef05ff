"""Unary calls by grpcio, its asyncio side included."""

from __future__ import annotations

import asyncio
from concurrent import futures
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from offload.v1 import private_key_pb2 as pb
from offload.v1 import private_key_pb2_grpc
from tests.offload.dataplane.service.calls import sign_request, status_of
from tests.offload.dataplane.serving import (
    ECDSA_P256,
    SCHEMES,
    Server,
    tls13_input,
    verify,
)


@pytest.mark.parametrize("algorithm", ["rsa2048", "p256", "p384", "ed25519"])
def test_signatures_verify(server: Server, algorithm: str) -> None:
    key = server.keys[algorithm]
    with server.stub() as stub:
        for seed in range(3):
            response = stub.Sign(sign_request(key, seed))
            verify(key.public_key_der, SCHEMES[algorithm], response.signature, tls13_input(seed))
            assert response.backend in (pb.BACKEND_SOFTWARE, pb.BACKEND_IFMA8)
            assert response.batch_size == 1


@pytest.mark.parametrize("scheme", [0x0401, 0x0501, 0x0601, 0x0804, 0x0805, 0x0806])
def test_rsa_schemes_verify(server: Server, scheme: int) -> None:
    key = server.keys["rsa2048"]
    with server.stub() as stub:
        response = stub.Sign(sign_request(key, signature_scheme=scheme, input=b"anything"))
    verify(key.public_key_der, scheme, response.signature, b"anything")


def test_digests_are_signed_where_any_is_allowed(server: Server) -> None:
    key, data = server.keys["p256"], b"to be hashed by the client"
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    with server.stub() as stub:
        response = stub.Sign(sign_request(key, input=digest.finalize(), prehashed=True))
        verify(key.public_key_der, ECDSA_P256, response.signature, data)
        code, _ = status_of(lambda: stub.Sign(sign_request(key, input=b"short", prehashed=True)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_decrypt(server: Server) -> None:
    key = server.keys["rsa2048"]
    public = load_der_public_key(key.public_key_der)
    assert isinstance(public, rsa.RSAPublicKey)
    secret = b"\x03\x03" + bytes(range(46))
    with server.stub() as stub:
        encrypted = public.encrypt(secret, padding.PKCS1v15())
        assert stub.Decrypt(pb.DecryptRequest(key_id=key.key_id, ciphertext=encrypted)).plaintext == secret
        # Implicit rejection: 48 bytes that depend on key and ciphertext alone, no error.
        broken = bytes([encrypted[0] ^ 1]) + encrypted[1:]
        answers = {stub.Decrypt(pb.DecryptRequest(key_id=key.key_id, ciphertext=broken)).plaintext for _ in range(2)}
        assert len(answers) == 1
        assert len(answers.pop()) == 48
        code, _ = status_of(lambda: stub.Decrypt(pb.DecryptRequest(key_id=key.key_id, ciphertext=encrypted[1:])))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        not_rsa = pb.DecryptRequest(key_id=server.keys["p256"].key_id, ciphertext=encrypted)
        assert status_of(lambda: stub.Decrypt(not_rsa))[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"key_id": b"short"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"key_id": b""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"key_id": b"?" * 32}, grpc.StatusCode.NOT_FOUND),
        ({"signature_scheme": 0}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"signature_scheme": 0x0804}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"signature_scheme": 0x10403}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"signature_scheme": 2**32 - 1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"input": bytes(512 * 1024 + 1)}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_refused_requests(server: Server, changes: dict[str, Any], code: grpc.StatusCode) -> None:
    with server.stub() as stub:
        found, details = status_of(lambda: stub.Sign(sign_request(server.keys["p256"], **changes)))
        assert found is code
        assert details
        stub.Sign(sign_request(server.keys["p256"]))  # the connection is as good as ever


def test_largest_input_is_signed(server: Server) -> None:
    key, data = server.keys["p256"], bytes(512 * 1024)
    with server.stub() as stub:
        verify(key.public_key_der, ECDSA_P256, stub.Sign(sign_request(key, input=data)).signature, data)


@pytest.mark.slow(seconds=2)
def test_500_unary_calls_in_flight(server: Server) -> None:
    key = server.keys["p256"]
    with server.stub() as stub:
        calls = [stub.Sign.future(sign_request(key, seed)) for seed in range(500)]
        for seed, call in enumerate(calls):
            verify(key.public_key_der, ECDSA_P256, call.result(timeout=60).signature, tls13_input(seed))
    assert sum(n for (status, _), n in server.operations("p256").items() if status == "OK") == 500


async def test_500_aio_calls_in_flight(server: Server) -> None:
    key = server.keys["p256"]
    async with grpc.aio.insecure_channel(server.target()) as channel:
        stub = private_key_pb2_grpc.PrivateKeyServiceStub(channel)
        responses = await asyncio.gather(*(stub.Sign(sign_request(key, seed)) for seed in range(500)))
    for seed, response in enumerate(responses):
        verify(key.public_key_der, ECDSA_P256, response.signature, tls13_input(seed))


def test_many_threads_and_channels(server: Server) -> None:
    names = ["p256", "rsa2048", "ed25519", "p384"]

    def client(number: int) -> None:
        key = server.keys[names[number % len(names)]]
        with server.stub() as stub:
            for seed in range(20):
                response = stub.Sign(sign_request(key, seed))
                verify(key.public_key_der, SCHEMES[key.algorithm], response.signature, tls13_input(seed))

    with futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(client, range(16)))
    assert server.data_plane.statistics()["connections_total"] == 16
