"""Frames that carry nothing, and windows for all streams."""

from __future__ import annotations

import contextlib

from hyperframe.frame import DataFrame, SettingsFrame

from tests.offload.dataplane.grpc.attacks import refusals
from tests.offload.dataplane.grpc.hostile import serves
from tests.offload.dataplane.raw_http2 import RawClient
from tests.offload.dataplane.serving import Server


def test_padding_alone_carries_nothing(server: Server) -> None:
    with RawClient(server.connect()) as client:
        stream = client.open("Stream")
        frame = DataFrame(stream, b"", pad_length=0, flags=["PADDED"]).serialize()
        assert frame[8 + 1] == 0, "a length of padding, and nothing else"
        with contextlib.suppress(OSError):
            for _ in range(100):
                client.socket.sendall(frame * 100)
        client.wait_closed()
    assert refusals(server)["flood"] == 1
    serves(server)


def test_a_window_for_all_streams_costs_as_much_as_there_are(server: Server) -> None:
    """One SETTINGS frame goes through every stream."""
    with RawClient(server.connect()) as client:
        client.ping()
        for _ in range(1000):
            client.open("Stream")
            client.read_available()
        with contextlib.suppress(OSError):
            for number in range(100):
                client.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 65535 + number % 2}))
        client.wait_closed()
    assert refusals(server)["flood"] == 1
