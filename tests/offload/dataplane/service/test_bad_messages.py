"""Messages and methods that do not exist, are too large, compressed or garbage."""

from __future__ import annotations

import grpc
import pytest

from tests.offload.dataplane.service.calls import sign_request, status_of
from tests.offload.dataplane.serving import (
    Server,
)


def raw(stub_channel: grpc.Channel, method: str) -> grpc.UnaryUnaryMultiCallable:
    """Sends bytes as they are."""
    return stub_channel.unary_unary(f"/offload.v1.PrivateKeyService/{method}")


@pytest.mark.parametrize("method", ["Sign", "Decrypt", "Stream", "WatchIdentity", "WatchIdentities"])
@pytest.mark.parametrize("garbage", [b"\xff" * 50, b"\x0a\x05abc", b"\x0b", b"\x08\x01\x10"])
def test_garbage_messages(server: Server, method: str, garbage: bytes) -> None:
    with grpc.insecure_channel(server.target()) as channel:
        assert status_of(lambda: raw(channel, method)(garbage))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert server.data_plane.statistics()["refusals"]["malformed"] == 1


@pytest.mark.parametrize("method", ["Sign", "Stream"])
def test_oversize_messages(server: Server, method: str) -> None:
    with grpc.insecure_channel(server.target()) as channel:
        code, details = status_of(lambda: raw(channel, method)(bytes(600_000)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "576 KiB" in details


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages(server: Server, compression: grpc.Compression) -> None:
    key = server.keys["p256"]
    with server.stub() as stub:
        request = sign_request(key, input=bytes(10_000))
        code, details = status_of(lambda: stub.Sign(request, compression=compression))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert "identity" in details
        stub.Sign(request)


def test_unknown_method_and_service(server: Server) -> None:
    with grpc.insecure_channel(server.target()) as channel:
        for path in ("/offload.v1.PrivateKeyService/Export", "/other.Service/Sign", "/"):
            code, _ = status_of(lambda path=path: channel.unary_unary(path)(b""))
            assert code is grpc.StatusCode.UNIMPLEMENTED


def test_no_message_to_a_unary_method(server: Server) -> None:
    with grpc.insecure_channel(server.target()) as channel:
        for method in ("Sign", "Decrypt", "WatchIdentity"):
            call = channel.stream_unary(f"/offload.v1.PrivateKeyService/{method}")
            assert status_of(lambda call=call: call(iter([])))[0] is grpc.StatusCode.INVALID_ARGUMENT
