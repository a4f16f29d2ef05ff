"""Bounds of queues and connections, and what a client is told at them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import grpc
import pytest

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.service.calls import occupy, operation, sign_request, status_of
from tests.offload.dataplane.serving import (
    ECDSA_P256,
    Server,
    tls13_input,
    verify,
    why_turned_away,
)


def test_bound_per_connection(make_server: Callable[..., Server]) -> None:
    server = make_server(shards=1, backend="software", connection_queue_limit=10)
    key = server.keys["rsa2048"]
    with server.stub() as stub:
        batch = pb.OperationBatch(operations=[operation(key, n) for n in range(50)])
        results = [r for b in stub.Stream(iter([batch])) for r in b.results]
        statuses = [r.status for r in results]
        assert len(results) == 50
        assert statuses.count(0) == 10
        assert statuses.count(8) == 40
        assert server.data_plane.statistics()["refusals"]["connection_queue_full"] == 40
        stub.Sign(sign_request(key))


def test_bound_of_the_queue(make_server: Callable[..., Server]) -> None:
    server = make_server(shards=1, backend="software", queue_limit=20)
    key = server.keys["rsa2048"]
    with server.stub() as stub, server.stub() as other:
        _requests, call = occupy(server, stub, 200)
        assert [
            r.status for b in other.Stream(iter([pb.OperationBatch(operations=[operation(key, 1)])])) for r in b.results
        ] == [0]  # others still get in
        # All were in one message, so most found the queue full; they are counted a moment after the others are in.
        wait_for("at least 150 queue full", lambda: server.data_plane.statistics()["refusals"]["queue_full"] >= 150)
        call.cancel()


def test_limits_change_while_it_runs(make_server: Callable[..., Server]) -> None:
    server = make_server(shards=1, backend="software", queue_limit=4096, max_wait_us=1000)
    for limits in ((1001, 20), (1000, 4097), (1000, 0)):
        with pytest.raises(ValueError, match="max_wait_us 1000, queue_limit 1 to 4096"):
            server.data_plane.set_limits(*limits)
    server.data_plane.set_limits(0, 20)
    with server.stub() as stub:
        _requests, call = occupy(server, stub, 200)
        # All were in one message, so most found the queue full; they are counted a moment after the others are in.
        wait_for("at least 150 queue full", lambda: server.data_plane.statistics()["refusals"]["queue_full"] >= 150)
        call.cancel()
    wait_for("no queued", lambda: server.data_plane.statistics()["queued"] == 0)
    server.data_plane.set_limits(1000, 4096)
    before = server.data_plane.statistics()["refusals"]["queue_full"]
    with server.stub() as stub:
        _requests, call = occupy(server, stub, 200)
        call.cancel()
    assert server.data_plane.statistics()["refusals"]["queue_full"] == before


def test_a_quiet_client_beside_a_flooding_one(make_server: Callable[..., Server]) -> None:
    server = make_server(shards=1, backend="software", queue_limit=500)
    key, stop = server.keys["rsa2048"], threading.Event()

    def flood() -> None:
        def endless() -> Iterator[pb.OperationBatch]:
            number = 0
            while not stop.is_set():
                yield pb.OperationBatch(operations=[operation(key, number + n) for n in range(100)])
                number += 100

        with server.stub() as stub:
            for _ in stub.Stream(endless()):
                pass

    flooders = [threading.Thread(target=flood) for _ in range(3)]
    for thread in flooders:
        thread.start()
    try:
        with server.stub() as quiet:
            wait_for("more than 400 queued", lambda: server.data_plane.statistics()["queued"] > 400)
            for seed in range(20):
                requests = iter([pb.OperationBatch(operations=[operation(key, seed)])])
                (result,) = [r for b in quiet.Stream(requests) for r in b.results]
                assert result.status == 0, result.message
    finally:
        stop.set()
        for thread in flooders:
            thread.join()


def test_connection_limit(make_server: Callable[..., Server]) -> None:
    server = make_server(max_connections=3)
    held = [server.connect() for _ in range(3)]
    refused = server.connect()
    reason = why_turned_away(refused)
    assert reason == "too many connections to the daemon (data_plane.max_connections: 3)"
    with server.stub() as stub:
        code, _ = status_of(lambda: stub.Sign(sign_request(server.keys["p256"]), timeout=20))
    assert code is grpc.StatusCode.UNAVAILABLE, "stock gRPC hears of it at once"
    assert server.data_plane.statistics()["refusals"]["too_many_connections"] >= 1
    for connection in held:
        connection.close()
    wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
    with server.stub() as stub:
        stub.Sign(sign_request(server.keys["p256"]))


def test_1000_idle_connections(server: Server) -> None:
    key = server.keys["p256"]
    idle = [server.connect() for _ in range(1000)]
    try:
        with server.stub() as stub:
            wait_for("at least 1000 connections", lambda: server.data_plane.statistics()["connections"] >= 1000)
            for seed in range(50):
                verify(key.public_key_der, ECDSA_P256, stub.Sign(sign_request(key, seed)).signature, tls13_input(seed))
    finally:
        for connection in idle:
            connection.close()
