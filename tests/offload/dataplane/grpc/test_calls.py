"""Calls by hand: headers, bodies and messages, right and wrong."""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.grpc.hostile import IN_CLASS, NO_ERROR, batch, request_bytes
from tests.offload.dataplane.raw_http2 import RawClient, grpc_frame, headers
from tests.offload.dataplane.serving import Server, tls13_input


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"content_type": "application/json"}, {":status": "415"}),
        ({"content_type": None}, {":status": "415"}),
        ({":method": "GET"}, {":status": "405"}),
        ({":path": "/x"}, {":status": "200", "grpc-status": "12"}),
        ({"grpc_timeout": "1 second"}, {":status": "200", "grpc-status": "3"}),
        ({"grpc_timeout": "0n"}, {":status": "200", "grpc-status": "4"}),
        ({"te": None}, {":status": "200", "grpc-status": "0"}),
        ({"grpc_encoding": "gzip"}, {":status": "200", "grpc-status": "0"}),
        ({"long": "x" * 17_000}, {":status": "200", "grpc-status": "8"}),
    ],
)
def test_headers(client: RawClient, server: Server, changes: dict[str, str | None], expected: dict[str, str]) -> None:
    frame = client.request(headers("Sign", **changes), flags=[])
    block = frame.data
    first, rest = block[:16000], block[16000:]
    client.send(
        HeadersFrame(frame.stream_id, first, flags=[] if rest else ["END_HEADERS"]),
        *([ContinuationFrame(frame.stream_id, rest, flags=["END_HEADERS"])] if rest else []),
    )
    client.data(frame.stream_id, grpc_frame(request_bytes(server)), end=True)
    found = client.wait(frame.stream_id).headers
    assert {name: found.get(name) for name in expected} == expected


def test_status_before_the_client_is_done(client: RawClient) -> None:
    """Trailers, then RST_STREAM(NO_ERROR): the client shall stop sending, and nothing went wrong in transport."""
    stream = client.open("Unknown")
    answer = client.wait(stream)
    assert answer.status == "12"
    while answer.reset is None:
        assert client.step() is not None
    assert answer.reset == NO_ERROR


def test_answer_without_half_close(client: RawClient, server: Server) -> None:
    stream = client.open("Sign")
    client.data(stream, grpc_frame(request_bytes(server)))
    assert client.wait(stream).status == "0"


@pytest.mark.parametrize("method", ["Sign", "WatchIdentity"])
def test_second_message(client: RawClient, server: Server, method: str) -> None:
    message = request_bytes(server) if method == "Sign" else pb.WatchIdentityRequest(identity="www").SerializeToString()
    stream = client.open(method)
    client.data(stream, 2 * grpc_frame(message), end=True)
    assert client.wait(stream).status == "3"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "3"),
        (b"\0\0\0", "3"),
        (grpc_frame(b"abc")[:-1], "3"),
        (grpc_frame(b"", flag=1), "13"),
        (grpc_frame(b"", flag=2), "13"),
        (b"\0\xff\xff\xff\xff", "8"),
        (b"\0\0\x09\0\x01", "8"),
    ],
)
@pytest.mark.parametrize("method", ["Sign", "Stream"])
def test_bodies(client: RawClient, method: str, body: bytes, status: str) -> None:
    stream = client.open(method)
    client.data(stream, body, end=True)
    expected = "0" if method == "Stream" and body == b"" else status
    assert client.wait(stream).status == expected


def test_message_in_one_byte_frames(client: RawClient, server: Server) -> None:
    stream = client.open("Sign")
    for byte in grpc_frame(request_bytes(server)):
        client.send(DataFrame(stream, bytes([byte])))
    client.send(DataFrame(stream, b"", flags=["END_STREAM"]))
    assert client.wait(stream).status == "0"


@IN_CLASS
@given(cuts=st.lists(st.integers(1, 3000), max_size=12), pad=st.integers(0, 50))
def test_batches_in_any_pieces(server: Server, cuts: list[int], pad: int) -> None:
    data = (
        batch(server, range(10)) + batch(server, range(10, 13)) + batch(server, range(0)) + batch(server, range(13, 20))
    )
    with RawClient(server.connect()) as client:
        stream = client.open("Stream")
        for cut in [*cuts, len(data)]:
            piece, data = data[:cut], data[cut:]
            client.send(DataFrame(stream, piece, pad_length=pad, flags=["PADDED"] if pad else []))
        client.data(stream, b"", end=True)
        answer = client.wait(stream)
    results = [r for m in answer.messages() for r in pb.ResultBatch.FromString(m).results]
    assert (answer.status, sorted(r.id for r in results)) == ("0", list(range(20)))


@IN_CLASS
@given(
    id=st.integers(0, 2**64 - 1),
    key=st.one_of(st.binary(max_size=40), st.none()),
    scheme=st.one_of(st.sampled_from([0x0403, 0x0804]), st.integers(0, 2**32 - 1)),
    data=st.one_of(st.just(tls13_input()), st.binary(max_size=600)),
    prehashed=st.booleans(),
    timeout_us=st.one_of(st.just(0), st.integers(0, 2**32 - 1)),
    kind=st.integers(-(2**31), 2**31 - 1),
    cancelled=st.lists(st.integers(0, 2**64 - 1), max_size=5),
)
def test_every_field_fuzzed(
    server: Server,
    id: int,
    key: bytes | None,
    scheme: int,
    data: bytes,
    prehashed: bool,
    timeout_us: int,
    kind: int,
    cancelled: list[int],
) -> None:
    """One answer per operation, with a status that the protocol knows."""
    key_id = server.keys["p256"].key_id if key is None else key
    operation = pb.Operation(
        id=id,
        key_id=key_id,
        signature_scheme=scheme,
        input=data,
        prehashed=prehashed,
        timeout_us=timeout_us,
        kind=kind,  # type: ignore[arg-type]  # mostly none that there is
    )
    message = pb.OperationBatch(operations=[operation], cancelled=[c for c in cancelled if c != id])
    unary = pb.SignRequest(key_id=key_id, signature_scheme=scheme, input=data, prehashed=prehashed)
    with RawClient(server.connect()) as client:
        stream = client.open("Stream")
        client.data(stream, grpc_frame(message.SerializeToString()), end=True)
        answer = client.wait(stream)
        (result,) = [r for m in answer.messages() for r in pb.ResultBatch.FromString(m).results]
        assert (answer.status, result.id) == ("0", id)
        assert result.status in (0, 3, 4, 5)
        assert client.call("Sign", unary.SerializeToString()).status in ("0", "3", "5")
        decrypt = pb.DecryptRequest(key_id=key_id, ciphertext=data)
        assert client.call("Decrypt", decrypt.SerializeToString()).status in ("3", "5")
        watch = pb.WatchIdentityRequest(identity=data.decode("latin-1"))
        assert client.call("WatchIdentity", watch.SerializeToString()).status == "5"


@IN_CLASS
@given(message=st.binary(max_size=200), method=st.sampled_from(["Sign", "Decrypt", "Stream", "WatchIdentity"]))
def test_random_messages(server: Server, message: bytes, method: str) -> None:
    with RawClient(server.connect()) as client:
        answer = client.call(method, message)
        assert answer.status in ("0", "3", "5")
