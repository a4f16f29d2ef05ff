"""Peers that do not read their answers cost a bounded memory, and are closed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from hyperframe.frame import PingFrame, SettingsFrame

from deploy.node.waiting import wait_for
from tests.offload.dataplane.grpc.attacks import refusals, send_until_blocked
from tests.offload.dataplane.grpc.hostile import memory_mib, request_bytes, serves
from tests.offload.dataplane.raw_http2 import RawClient, grpc_frame, headers
from tests.offload.dataplane.serving import Server


def refused_calls(client: RawClient, count: int) -> bytes:
    """Calls of a method that there is not: each is answered by its headers alone."""
    return b"".join(
        client.request(headers("Unknown"), flags=["END_HEADERS", "END_STREAM"]).serialize() for _ in range(count)
    )


@pytest.mark.slow(seconds=5)
def test_refused_calls_to_a_peer_that_does_not_read(server: Server) -> None:
    """It is no longer read from once its answers do not leave: neither memory nor work grows by what it sends."""
    serves(server)
    before = memory_mib()
    with RawClient(server.connect()) as client:
        data = refused_calls(client, 100_000)  # 3 MB, and a hundred times that as answers in nghttp2's queue
        taken = send_until_blocked(client.socket, data, len(data))
        assert taken < len(data) // 2
        assert memory_mib() - before < 20
        serves(server)
        # It wakes up: everything that was taken is answered, and the rest is taken.
        client.socket.settimeout(20)
        client.read_available()
        assert any(answer.status == "12" for answer in client.answers.values())
    wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
    assert server.data_plane.statistics()["streams"] == 0


@pytest.mark.parametrize("frame", [PingFrame(0, b"12345678"), SettingsFrame(0)], ids=["ping", "settings"])
def test_control_frames_of_a_peer_that_does_not_read(server: Server, frame: PingFrame | SettingsFrame) -> None:
    before = memory_mib()
    with contextlib.ExitStack() as clients:
        for _ in range(50):
            client = clients.enter_context(RawClient(server.connect()))
            client.socket.settimeout(0.02)
            with contextlib.suppress(OSError):
                client.socket.sendall(1900 * frame.serialize())
        serves(server)
        assert memory_mib() - before < 20


@pytest.mark.slow(seconds=2)
def test_who_takes_nothing_for_long_is_closed(make_server: Callable[..., Server]) -> None:
    server = make_server(stalled_timeout_ms=200)
    with RawClient(server.connect()) as client, server.connect() as blocked:
        # One whose socket is full, and one whose windows are closed.
        data = refused_calls(client, 30_000)
        send_until_blocked(client.socket, data, len(data))
        waiting = RawClient(blocked, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        stream = waiting.open("Sign")
        waiting.data(stream, grpc_frame(request_bytes(server)), end=True)
        wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
    assert refusals(server)["does_not_read"] == 2
    serves(server)


@pytest.mark.slow(seconds=5)
def test_who_reads_slowly_is_not_closed(make_server: Callable[..., Server]) -> None:
    server = make_server(stalled_timeout_ms=2000)
    with RawClient(server.connect()) as client:
        data = refused_calls(client, 20_000)
        send_until_blocked(client.socket, data, len(data))
        client.socket.settimeout(1)
        with contextlib.suppress(TimeoutError):  # it has read all that there was
            for _ in range(10):
                time.sleep(0.25)
                assert client.socket.recv(24 * 1024)
        client.read_available()
        assert server.data_plane.statistics()["connections"] == 1
    assert refusals(server)["does_not_read"] == 0
