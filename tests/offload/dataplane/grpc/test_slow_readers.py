"""Clients with tiny windows, and those that never read."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import pytest
from hyperframe.frame import (
    DataFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.grpc.hostile import batch, memory_mib, request_bytes, serves
from tests.offload.dataplane.raw_http2 import RawClient, grpc_frame
from tests.offload.dataplane.serving import ECDSA_P256, Server, tls13_input, verify


def test_reader_with_a_tiny_window(server: Server) -> None:
    """Results come through a window of a few bytes, whole and in order of frames."""
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 7}) as client:
        stream = client.open("Stream")
        client.data(stream, batch(server, range(30)), end=True)
        answer = client.answer(stream)
        while not answer.ended:
            size = len(answer.data)
            frame = client.step()
            assert frame is not None
            if isinstance(frame, DataFrame) and len(answer.data) > size:
                client.send(
                    WindowUpdateFrame(stream, window_increment=len(answer.data) - size),
                    WindowUpdateFrame(0, window_increment=len(answer.data) - size),
                )
    results = [r for m in answer.messages() for r in pb.ResultBatch.FromString(m).results]
    assert sorted(r.id for r in results) == list(range(30))
    for result in results:
        verify(server.keys["p256"].public_key_der, ECDSA_P256, result.output, tls13_input(result.id))


def test_unary_answer_through_a_tiny_window(server: Server) -> None:
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1}) as client:
        stream = client.open("Sign")
        client.data(stream, grpc_frame(request_bytes(server)), end=True)
        answer = client.answer(stream)
        while not answer.ended:
            if isinstance(client.step(), DataFrame):
                client.send(WindowUpdateFrame(stream, window_increment=1))
    assert answer.status == "0"
    (message,) = answer.messages()
    signature = pb.SignResponse.FromString(message).signature
    verify(server.keys["p256"].public_key_der, ECDSA_P256, signature, tls13_input())


@pytest.mark.slow(seconds=5)
def test_a_client_that_never_reads(make_server: Callable[..., Server]) -> None:
    """It is read from until its share is unanswered, and then no more: memory stays, others are served."""
    server = make_server(connection_queue_limit=256)
    serves(server)
    before = memory_mib()
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as client:
        client.ping()
        stream = client.open("Stream")
        client.socket.settimeout(0.5)
        sent = 0
        data = batch(server, range(200))
        with contextlib.suppress(TimeoutError):
            while sent < 200 * 2**20:
                client.socket.sendall(
                    b"".join(DataFrame(stream, data[i : i + 16384]).serialize() for i in range(0, len(data), 16384))
                )
                sent += len(data)
                client.read_available()
                while client.windows.get(stream, 0) < sent - 200_000:  # keeps to the windows it is given
                    client.step()
        assert sent < 4 * 2**20
        assert memory_mib() - before < 30
        serves(server)
        # It wakes up and reads: everything that was taken is answered.
        client.socket.settimeout(20)
        client.send(
            SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 2**30}), WindowUpdateFrame(0, window_increment=2**30)
        )
        client.ping()
    wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)


@pytest.mark.parametrize("tail", [b"", b"\0\0\0", grpc_frame(b"abcd")[:-1]])
def test_end_of_a_stream_that_is_paused(make_server: Callable[..., Server], tail: bytes) -> None:
    """More is sent than may be unanswered, then the end: every message is still dealt with, and so is the end."""
    server = make_server(connection_queue_limit=2)
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as client:
        stream = client.open("Stream")
        client.data(stream, b"".join(batch(server, range(n, n + 3)) for n in range(0, 60, 3)) + tail, end=True)
        client.ping()
        client.send(WindowUpdateFrame(stream, window_increment=2**20))
        answer = client.wait(stream)
    results = [r for m in answer.messages() for r in pb.ResultBatch.FromString(m).results]
    if tail:
        assert answer.status == "3"
    else:
        assert answer.status == "0"
        assert sorted(r.id for r in results) == list(range(60))
        assert {r.status for r in results} == {0, 8}


def test_windows_reopen(server: Server) -> None:
    """Far more than a window passes through one stream, since answers leave."""
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**30}) as client:
        client.send(WindowUpdateFrame(0, window_increment=2**30))
        client.ping()  # the server's settings are in force: windows of 640 KiB
        stream = client.open("Stream")
        answer, allowed, sent, asked = client.answer(stream), 640 * 1024, 0, 0
        while sent < 3 * 2**20:
            data = batch(server, range(asked, asked + 100))
            while client.windows.get(stream, 0) + allowed < sent + len(data):
                assert client.step() is not None
                assert answer.reset is None
            client.send_while_reading(*(DataFrame(stream, data[at : at + 16384]) for at in range(0, len(data), 16384)))
            sent, asked = sent + len(data), asked + 100
        client.data(stream, b"", end=True)
        client.wait(stream)
    assert answer.status == "0"
    ids = sorted(r.id for m in answer.messages() for r in pb.ResultBatch.FromString(m).results)
    assert ids == list(range(asked))


def test_connections_drop_in_the_middle(server: Server) -> None:
    """Cut at a random byte of a busy exchange, many times."""
    rng = random.Random(1)
    data = batch(server, range(100)) + batch(server, range(100, 110), "rsa2048")
    for _ in range(60):
        client = RawClient(server.connect())
        stream = client.open("Stream")
        frames = b"".join(DataFrame(stream, data[i : i + 5000]).serialize() for i in range(0, len(data), 5000))
        client.send(frames[: rng.randrange(len(frames))])
        if rng.random() < 0.5:
            client.step()
        client.socket.close()
    serves(server)
    wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
    wait_for("no queued", lambda: server.data_plane.statistics()["queued"] == 0)
