"""Floods of frames, streams and unfinished messages are bounded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.grpc.hostile import ENHANCE_YOUR_CALM, memory_mib, request_bytes, serves
from tests.offload.dataplane.raw_http2 import RawClient, grpc_frame, headers
from tests.offload.dataplane.serving import Server


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, b"12345678"),
        SettingsFrame(0, {4: 65535}),
    ],
    ids=["ping", "settings"],
)
def test_control_frames_are_bounded(server: Server, frame: PingFrame) -> None:
    with RawClient(server.connect()) as client:
        flood = frame.serialize() * 100
        with contextlib.suppress(OSError):
            for _ in range(200):
                client.socket.sendall(flood)
                client.socket.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    client.received += client.socket.recv(65536)
                client.socket.settimeout(20)
        client.wait_closed()
        assert client.goaway is None or client.goaway.error_code == ENHANCE_YOUR_CALM
    refusals = server.data_plane.statistics()["refusals"]
    assert refusals["flood"] + refusals["malformed"] >= 1
    serves(server)


def test_normal_keepalive_is_no_flood(client: RawClient) -> None:
    for _ in range(500):
        client.ping()


def test_empty_data_frames_are_bounded(server: Server) -> None:
    with RawClient(server.connect()) as client:
        stream = client.open("Stream")
        with contextlib.suppress(OSError):
            for _ in range(100):
                client.socket.sendall(DataFrame(stream, b"").serialize() * 100)
        client.wait_closed()
    assert server.data_plane.statistics()["refusals"]["flood"] == 1
    serves(server)


def test_continuation_flood(server: Server) -> None:
    with RawClient(server.connect()) as client:
        frame = client.request(headers("Sign"), flags=[])
        with contextlib.suppress(OSError):
            client.send(frame)
            for _ in range(2000):
                client.send(ContinuationFrame(frame.stream_id, b""))
        client.wait_closed()
    serves(server)


def test_many_resets_are_served(server: Server) -> None:
    """A client whose own callers give up much is not thrown out, and leaves nothing behind."""
    with RawClient(server.connect()) as client:
        for _ in range(50):
            frames: list[bytes] = []
            for _ in range(100):
                opened = client.request(headers("Sign"))
                frames += [
                    opened.serialize(),
                    DataFrame(opened.stream_id, grpc_frame(request_bytes(server))).serialize(),
                    RstStreamFrame(opened.stream_id, 8).serialize(),
                ]
            client.send(*frames)
            client.ping()
        assert client.call("Sign", request_bytes(server)).status == "0"
    wait_for("no streams", lambda: server.data_plane.statistics()["streams"] == 0)
    assert server.data_plane.statistics()["queued"] == 0


def test_more_streams_than_allowed(make_server: Callable[..., Server]) -> None:
    """A client that was told the limit and goes past it is closed; one that keeps to it queues its calls itself."""
    server = make_server(max_streams_per_connection=10)
    with RawClient(server.connect()) as client:
        client.ping()
        with contextlib.suppress(OSError):
            for _ in range(12):
                client.open("Stream")
        client.wait_closed()
    with server.stub() as stub:
        request = pb.SignRequest.FromString(request_bytes(server))
        calls = [stub.Sign.future(request) for _ in range(100)]
        assert all(call.result(timeout=20).signature for call in calls)


def test_unfinished_messages_are_bounded(make_server: Callable[..., Server]) -> None:
    """Hundreds of calls that each hold back the end of a 60 KiB message: refused past 4 MiB, in memory and in count."""
    server = make_server(max_streams_per_connection=1000)
    before = memory_mib()
    with RawClient(server.connect()) as client:
        for _ in range(300):
            stream = client.open("Sign")
            client.data(stream, grpc_frame(bytes(60_000))[:-1])
        client.ping()
        refused = sum(1 for answer in client.answers.values() if answer.status == "8")
        assert refused >= 200
    assert memory_mib() - before < 40
    serves(server)
