"""Callers who connect and disconnect as fast as they can."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from deploy.node.waiting import wait_for
from tests.offload.dataplane.grpc.attacks import allow, refusals
from tests.offload.dataplane.grpc.hostile import request_bytes, serves
from tests.offload.dataplane.raw_http2 import PREFACE, RawClient
from tests.offload.dataplane.serving import Server


def test_strangers_who_connect_all_the_time_are_refused_before_they_cost_much(server: Server) -> None:
    """Who has an identity is not counted, and comes in."""
    server.listen("cart")
    allow(server, [{"socket": "cart"}])
    if "SANITIZED" in os.environ:
        pytest.skip("a sanitized data plane on a busy machine accepts fewer a second than are forgiven")
    for _ in range(5000):
        with server.connect() as one, contextlib.suppress(OSError):
            one.sendall(PREFACE)
        if refusals(server)["too_many_connections_without_identity"] > 0:
            break
    else:
        pytest.fail("5,000 connections, and none was refused")
    wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
    for _ in range(600):
        server.connect("cart").close()
    with RawClient(server.connect("cart")) as client:
        assert client.call("Sign", request_bytes(server)).status == "0"


# Another process of the same uid, which a selector names by its group as well.
SAME_USER = """
import os, socket, sys
os.setgid(54321)
def answer():
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(sys.argv[1])
        one.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        return one.recv(9)[3]
print(sum(answer() == 4 for _ in range(40)))  # SETTINGS, and no GOAWAY
"""


@pytest.mark.root
def test_a_stranger_of_the_same_user_does_not_lock_others_out(server: Server) -> None:
    server.listen("shared").chmod(0o666)
    allow(server, [{"uid": os.getuid(), "gid": 54321}])
    for _ in range(2000):
        with server.connect("shared") as one, contextlib.suppress(OSError):
            one.sendall(PREFACE)
    line = [sys.executable, "-c", SAME_USER, str(server.folder / "shared")]
    assert subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout == "40\n"


def test_who_connects_all_the_time_does_not_stop_others(server: Server) -> None:
    for _ in range(300):
        with server.connect() as one:
            one.sendall(PREFACE)
    serves(server)
    wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
