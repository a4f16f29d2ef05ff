"""Headers and trailers: HPACK bombs and sizes."""

from __future__ import annotations

import pytest
from hyperframe.frame import DataFrame, HeadersFrame

from tests.offload.dataplane.grpc.attacks import bomb, refusals
from tests.offload.dataplane.grpc.hostile import ENHANCE_YOUR_CALM, request_bytes, serves
from tests.offload.dataplane.raw_http2 import RawClient, grpc_frame, headers
from tests.offload.dataplane.serving import Server


@pytest.mark.parametrize("name", ["x", "x y"], ids=["valid", "invalid"])
def test_hpack_bomb(server: Server, name: str) -> None:
    """Beyond 64 KiB of headers in one request the connection is ended, however few bytes they were."""
    with RawClient(server.connect()) as client:
        client.send(*bomb(client, 1000, name=name))
        client.wait_closed()
        assert client.goaway is not None
        assert client.goaway.error_code == ENHANCE_YOUR_CALM
        assert b"too many headers" in client.goaway.additional_data
    assert refusals(server)["flood"] == 1
    serves(server)


def test_headers_that_are_only_too_large_are_answered(server: Server) -> None:
    with RawClient(server.connect()) as client:
        for references in (4, 8, 12):
            client.send(*bomb(client, references))
            assert client.wait(client.next_stream - 2).status == "8"
        assert client.call("Sign", request_bytes(server)).status == "0"
    assert refusals(server)["too_large"] == 3


def test_trailers_are_counted(server: Server) -> None:
    with RawClient(server.connect()) as client:
        first, second = client.open("Stream"), client.open("Stream")
        block = client.encoder.encode([("x", "a" * 3900)]) + bytes([0x80 | 62]) * 6
        client.send(HeadersFrame(first, block, flags=["END_HEADERS", "END_STREAM"]))
        assert client.wait(first).status == "8"
        client.send(HeadersFrame(second, bytes([0x80 | 62]) * 1000, flags=["END_HEADERS", "END_STREAM"]))
        client.wait_closed()
    assert refusals(server)["flood"] == 1


def test_requests_go_on_after_a_pause_within_their_headers(server: Server) -> None:
    """Many calls in one write, whose headers are more than one turn's worth: each is answered, in one piece or many."""
    metadata = {f"x-{n}": "v" * 1000 for n in range(10)}
    with RawClient(server.connect()) as client:
        frames = b""
        for number in range(40):
            opened = client.request([*headers("Sign"), *metadata.items()])
            message = DataFrame(opened.stream_id, grpc_frame(request_bytes(server, number)), flags=["END_STREAM"])
            frames += opened.serialize() + message.serialize()
        client.socket.sendall(frames)
        for stream in range(1, 80, 2):
            assert client.wait(stream).status == "0"
        for cut in range(1, 40):  # however the last bytes of a block come
            opened = client.request([*headers("Sign"), *metadata.items()])
            data = opened.serialize()
            client.socket.sendall(data[:-cut])
            client.socket.sendall(data[-cut:])
            client.data(opened.stream_id, grpc_frame(request_bytes(server, cut)), end=True)
            assert client.wait(opened.stream_id).status == "0"
