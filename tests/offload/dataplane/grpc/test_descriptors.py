"""Connections and listeners whose descriptors another process has too, and broken ones."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

from deploy.node.waiting import wait_for
from tests.offload.dataplane.grpc.hostile import batch, request_bytes, serves
from tests.offload.dataplane.raw_http2 import RawClient
from tests.offload.dataplane.serving import Server


@contextlib.contextmanager
def child_with_our_descriptors() -> Iterator[None]:
    """A child between fork and exec: whatever is closed here, its file stays open there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        yield
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_connections_that_end_while_a_child_has_them(server: Server) -> None:
    clients = [RawClient(server.connect()) for _ in range(50)]
    for number, client in enumerate(clients):
        assert client.call("Sign", request_bytes(server, number)).status == "0"
    with child_with_our_descriptors():
        for client in clients:
            client.socket.shutdown(socket.SHUT_RDWR)
            client.socket.close()
        wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
        for _ in range(50):
            serves(server)


def test_a_removed_listener_whose_socket_lives_on(server: Server) -> None:
    for number in range(20):
        name = f"dedicated-{number}"
        server.listen(name)
        server.data_plane.remove_listener(name)
        with server.connect(name):
            serves(server)


def test_paused_and_running_calls_of_a_connection_that_breaks(make_server: Callable[..., Server]) -> None:
    """One call's operations are taken back while another call of the same connection is paused."""
    server = make_server(shards=1, backend="software", connection_queue_limit=64)
    for _ in range(30):
        client = RawClient(server.connect())
        streams = [client.open("Stream") for _ in range(4)]
        for stream in streams:
            for _ in range(4):
                client.data(stream, batch(server, range(60), "rsa2048"))
        client.socket.close()
    serves(server)
    wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
