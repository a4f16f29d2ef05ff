"""What is not HTTP/2 at all is closed, and others are served."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hyperframe.frame import (
    SettingsFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.offload.dataplane.grpc.hostile import IN_CLASS, serves
from tests.offload.dataplane.raw_http2 import PREFACE
from tests.offload.dataplane.serving import Server


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 100]
)
def test_other_protocols_are_closed(server: Server, data: bytes) -> None:
    connection = server.connect()
    connection.sendall(data)
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    connection.close()
    assert server.data_plane.statistics()["refusals"]["malformed"] == 1
    serves(server)


@IN_CLASS
@given(data=st.binary(max_size=400), preface=st.booleans())
def test_random_bytes(server: Server, data: bytes, preface: bool) -> None:
    with server.connect() as connection, contextlib.suppress(OSError):
        connection.sendall((PREFACE + SettingsFrame(0).serialize() if preface else b"") + data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    serves(server)
