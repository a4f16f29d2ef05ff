"""Connections without a call are closed."""

from __future__ import annotations

import time
from collections.abc import Callable

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.grpc.hostile import request_bytes
from tests.offload.dataplane.raw_http2 import RawClient, grpc_frame
from tests.offload.dataplane.serving import Server


def test_a_connection_without_calls_ends(make_server: Callable[..., Server]) -> None:
    """With a notice, so that a client connects again when it has something to ask."""
    server = make_server(idle_timeout_ms=200)
    with RawClient(server.connect()) as client, server.connect() as silent:
        assert client.call("Sign", request_bytes(server)).status == "0"
        client.wait_closed()
        assert client.goaway is not None
        assert client.goaway.error_code == 0
        while silent.recv(65536):
            pass
        wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)


def test_who_watches_is_not_idle(make_server: Callable[..., Server]) -> None:
    server = make_server(idle_timeout_ms=100)
    with RawClient(server.connect()) as client:
        stream = client.open("WatchIdentity")
        client.data(stream, grpc_frame(pb.WatchIdentityRequest(identity="www").SerializeToString()), end=True)
        time.sleep(0.6)
        client.ping()
        assert client.goaway is None
        assert client.call("Sign", request_bytes(server)).status == "0"


def test_a_client_does_not_notice_that_it_was_idle(make_server: Callable[..., Server]) -> None:
    server = make_server(idle_timeout_ms=50)
    request = pb.SignRequest.FromString(request_bytes(server))
    with server.stub() as stub:
        for pause in (0.0, 0.05, 0.051, 0.2, 0.3, 0.25, 0.05):
            time.sleep(pause)
            assert stub.Sign(request, timeout=20, wait_for_ready=True).signature
