"""Bounds per user: connections, memory, operations, and callers without an identity."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from hyperframe.frame import SettingsFrame, WindowUpdateFrame

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.grpc.attacks import NOBODY, allow, bomb, refusals
from tests.offload.dataplane.grpc.hostile import ENHANCE_YOUR_CALM, memory_mib, request_bytes, serves
from tests.offload.dataplane.raw_http2 import RawClient, grpc_frame, headers
from tests.offload.dataplane.serving import Server, identity, tls13_input, why_turned_away


def test_connections_of_one_user_are_bounded(make_server: Callable[..., Server]) -> None:
    server = make_server(max_connections=10, max_connections_per_user=3)
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(RawClient(server.connect())) for _ in range(3)]
        for client in clients:
            client.ping()
        with server.connect() as fourth:
            assert "max_connections_per_user: 3" in why_turned_away(fourth)
        assert refusals(server)["too_many_connections_of_user"] == 1
        clients[0].socket.close()
        wait_for("2 connections", lambda: server.data_plane.statistics()["connections"] == 2)
        serves(server)


def test_a_dedicated_socket_is_a_user_of_its_own(make_server: Callable[..., Server]) -> None:
    server = make_server(max_connections=10, max_connections_per_user=2)
    server.listen("cart")
    with contextlib.ExitStack() as held:
        for name in ("main", "main", "cart", "cart"):
            held.enter_context(RawClient(server.connect(name))).ping()
        for name in ("main", "cart"):
            with server.connect(name) as another:
                assert "max_connections_per_user: 2" in why_turned_away(another)
    assert refusals(server)["too_many_connections_of_user"] == 2


def test_strangers_leave_room_for_callers_with_an_identity(make_server: Callable[..., Server]) -> None:
    """Through the dedicated socket somebody has an identity; through the main one nobody does."""
    server = make_server(max_connections=8, max_connections_per_user=8, max_connections_without_identity=3)
    server.listen("cart")
    allow(server, [{"socket": "cart"}])
    with contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(RawClient(server.connect())).ping()
        for _ in range(20):
            with server.connect() as refused:
                assert "max_connections_without_identity: 3" in why_turned_away(refused)
        assert refusals(server)["too_many_connections_without_identity"] == 20
        for _ in range(5):
            client = held.enter_context(RawClient(server.connect("cart")))
            assert client.call("Sign", request_bytes(server)).status == "0"


def test_a_stranger_becomes_known_with_its_identity(make_server: Callable[..., Server]) -> None:
    """Its place among the strangers is free again, and it may have as many calls as others."""
    server = make_server(max_connections=8, max_connections_without_identity=1)
    allow(server, NOBODY)
    with RawClient(server.connect()) as early:
        assert early.call("Sign", request_bytes(server)).status == "5"
        with server.connect() as refused:
            assert "max_connections_without_identity: 1" in why_turned_away(refused)
        allow(server)
        assert early.call("Sign", request_bytes(server)).status == "0"
        streams = [early.open("Stream") for _ in range(100)]
        early.ping()
        assert all(early.answer(stream).reset is None for stream in streams)
        allow(server, NOBODY)  # and a stranger again
        early.ping()
        with server.connect() as refused:
            assert "max_connections_without_identity: 1" in why_turned_away(refused)


def test_who_loses_its_identity_is_a_stranger_at_once(make_server: Callable[..., Server]) -> None:
    """Also while it is idle: nobody waits until it is next read from."""
    server = make_server(max_connections=8, max_connections_without_identity=2)
    with RawClient(server.connect()) as one, RawClient(server.connect()) as two:
        one.ping()
        two.ping()
        allow(server, NOBODY)
        with server.connect() as refused:
            assert "max_connections_without_identity: 2" in why_turned_away(refused)
        allow(server)
        with RawClient(server.connect()) as third:
            assert third.call("Sign", request_bytes(server)).status == "0"


def test_who_loses_its_identity_takes_queued_operations_along(make_server: Callable[..., Server]) -> None:
    server = make_server(
        shards=1, backend="software", max_connections=8, max_connections_without_identity=1, max_wait_us=0
    )
    key = server.keys["rsa2048"]
    server.data_plane.set_identities([identity("www", [{"key": key, "usage": "any", "decrypt": False}])])
    count = 1000  # takes longer than what follows
    operations = [
        pb.Operation(id=n, key_id=key.key_id, signature_scheme=0x0804, input=tls13_input(n)) for n in range(count)
    ]
    batches = [pb.OperationBatch(operations=operations[at : at + 200]) for at in range(0, count, 200)]
    windows = {SettingsFrame.INITIAL_WINDOW_SIZE: 2**30}
    with RawClient(server.connect(), settings=windows) as client:
        client.send(WindowUpdateFrame(0, window_increment=2**30))
        client.ping()  # the server's windows are in force
        stream = client.open("Stream")
        client.data(stream, b"".join(grpc_frame(batch.SerializeToString()) for batch in batches), end=True)
        wait_for("queued", lambda: server.data_plane.statistics()["queued"] > 0)
        allow(server, NOBODY)
        with server.connect() as refused:
            assert "max_connections_without_identity: 1" in why_turned_away(refused)
        queued = server.data_plane.statistics()["queued"]
        assert queued > 0  # all of this was before they were done
        answer = client.wait(stream)
        results = [r for m in answer.messages() for r in pb.ResultBatch.FromString(m).results]
        assert sorted(r.id for r in results) == list(range(count))  # what was accepted is done, the rest refused
        assert sum(r.status == 0 for r in results) >= queued
    wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
    allow(server)
    serves(server)


def test_who_loses_its_identity_keeps_no_more_than_strangers_have(make_server: Callable[..., Server]) -> None:
    """Connections beyond that are ended, and hear why."""
    server = make_server(max_connections=8, max_connections_without_identity=2)
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(RawClient(server.connect())) for _ in range(5)]
        for client in clients:
            client.ping()
        allow(server, NOBODY)
        wait_for("2 connections", lambda: server.data_plane.statistics()["connections"] == 2)
        assert refusals(server)["too_many_connections_without_identity"] == 3
        for client in clients:
            client.socket.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                client.wait_closed()
        ended = [client for client in clients if client.goaway is not None]
        assert len(ended) == 3
        for client in ended:
            assert client.closed
            assert client.goaway is not None
            assert b"max_connections_without_identity: 2" in client.goaway.additional_data


def test_memory_of_one_user_is_bounded_over_its_connections(make_server: Callable[..., Server]) -> None:
    """Unfinished messages, as many as there may be, on connection after connection."""
    server = make_server(user_memory_mib=8)
    before = memory_mib()
    unfinished = grpc_frame(bytes(60_000))[:-1]
    with contextlib.ExitStack() as held:
        for _ in range(40):
            with contextlib.suppress(OSError, AssertionError):  # connections are refused as well
                client = held.enter_context(RawClient(server.connect()))
                client.ping()
                for _ in range(16):
                    client.data(client.open("Sign"), unfinished)
                client.ping()
        assert memory_mib() - before < 30
        found = refusals(server)
        assert found["user_memory"] + found["too_large"] > 20
    wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
    serves(server)


def test_a_connection_beyond_the_memory_of_its_user_is_refused(make_server: Callable[..., Server]) -> None:
    server = make_server(user_memory_mib=1)
    with contextlib.ExitStack() as held:
        for _ in range(64):
            held.enter_context(server.connect())
        wait_for("at least 60 connections", lambda: server.data_plane.statistics()["connections"] >= 60)
        with server.connect() as refused:
            assert "data_plane.user_memory_mib: 1" in why_turned_away(refused)
        assert refusals(server)["user_memory"] > 0
    wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
    serves(server)


def test_a_connection_that_outgrows_the_memory_of_its_user_hears_why(make_server: Callable[..., Server]) -> None:
    """What was read and has to wait for its turn is kept, within what the user may hold."""
    server = make_server(user_memory_mib=1)
    with RawClient(server.connect()) as client, contextlib.ExitStack() as held:
        client.ping()
        for _ in range(70):  # each holds 16 KiB
            held.enter_context(server.connect())
        wait_for("a refusal for memory", lambda: refusals(server)["user_memory"] > 0)
        # Headers that take more than one turn, and behind them, in the same read, more than there is room for: a
        # connection holds 16 KiB, so less than that is left.
        frames = bomb(client, 12)
        calls = [client.request([*headers("Sign"), ("y", "b" * 30)]).serialize() for _ in range(400)]
        client.send(*frames, *calls)
        client.wait_closed()
        assert client.goaway is not None
        assert client.goaway.error_code == ENHANCE_YOUR_CALM
        assert b"data_plane.user_memory_mib: 1" in client.goaway.additional_data
    wait_for("no connections", lambda: server.data_plane.statistics()["connections"] == 0)
    serves(server)


def test_operations_of_one_user_are_bounded_over_its_connections(make_server: Callable[..., Server]) -> None:
    server = make_server(shards=1, backend="software", user_queue_limit=20, connection_queue_limit=15, max_wait_us=0)
    key = server.keys["rsa2048"]
    operations = [
        pb.Operation(id=n, key_id=key.key_id, signature_scheme=0x0804, input=tls13_input(n)) for n in range(15)
    ]
    message = grpc_frame(pb.OperationBatch(operations=operations).SerializeToString())
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(RawClient(server.connect())) for _ in range(12)]
        for client in clients:
            client.data(client.open("Stream"), message, end=True)
        answers = [client.wait(1) for client in clients]
    results = [r for a in answers for m in a.messages() for r in pb.ResultBatch.FromString(m).results]
    assert len(results) == 12 * 15
    assert {r.status for r in results} == {0, 8}
    assert refusals(server)["user_queue_full"] > 0
