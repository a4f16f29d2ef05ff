"""Graceful shutdown and restart: nothing that was accepted is lost, and clients know what was not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc
import pytest
from hyperframe.frame import ContinuationFrame

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.raw_http2 import RawClient, grpc_frame, headers
from tests.offload.dataplane.serving import ECDSA_P256, RSA_PSS_SHA256, Server, identity, tls13_input, verify

if TYPE_CHECKING:
    from offload._dataplane import KeyRule

RESTARTS = 15


def request(server: Server, seed: int = 0, algorithm: str = "p256") -> pb.SignRequest:
    scheme = {"p256": ECDSA_P256, "rsa2048": RSA_PSS_SHA256}[algorithm]
    return pb.SignRequest(key_id=server.keys[algorithm].key_id, signature_scheme=scheme, input=tls13_input(seed))


def operation(server: Server, number: int, algorithm: str = "rsa2048") -> pb.Operation:
    unary = request(server, number, algorithm)
    return pb.Operation(id=number, key_id=unary.key_id, signature_scheme=unary.signature_scheme, input=unary.input)


def restart(make_server: Callable[..., Server], old: Server) -> Server:
    """As a daemon does it: the new one listens at the path, then the old one drains and stops."""
    new = make_server(folder=old.folder)
    old.data_plane.drain()
    assert old.data_plane.statistics()["draining"]
    assert old.data_plane.wait_drained(20)
    old.close()
    return new


@pytest.mark.slow(seconds=7)
@pytest.mark.parametrize("algorithm", ["p256", "rsa2048"])
def test_no_unary_call_is_lost_over_restarts(make_server: Callable[..., Server], algorithm: str) -> None:
    server = make_server()
    stop, failures, done = threading.Event(), [], []

    def load(first: int, stub: object) -> None:
        seed = first
        while not stop.is_set():
            try:
                response = stub.Sign(request(server, seed, algorithm), timeout=20)  # type: ignore[attr-defined]
                done.append((seed, response.signature))
            except grpc.RpcError as error:
                failures.append(error)
            seed += 1

    with server.stub() as shared, server.stub() as another:
        threads = [threading.Thread(target=load, args=(n * 10**6, (shared, another)[n % 2])) for n in range(6)]
        for thread in threads:
            thread.start()
        current = server
        for _ in range(RESTARTS):
            before = len(done)
            wait_for("20 more that are done", lambda before=before: len(done) > before + 20)
            current = restart(make_server, current)
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(done) > 20 * RESTARTS
    scheme = {"p256": ECDSA_P256, "rsa2048": RSA_PSS_SHA256}[algorithm]
    for seed, signature in done[::10]:
        verify(server.keys[algorithm].public_key_der, scheme, signature, tls13_input(seed))


@pytest.mark.slow(seconds=3)
def test_no_operation_of_a_stream_is_lost_over_restarts(make_server: Callable[..., Server]) -> None:
    """A client that opens a new stream when its own is ended, and asks again for what was not answered."""
    server = current = make_server()
    stop, answered, unanswered = threading.Event(), set(), []

    def batches(numbers: list[int]) -> Iterator[pb.OperationBatch]:
        for number in numbers:
            yield pb.OperationBatch(operations=[operation(server, number, "p256")])
            time.sleep(0.0005)

    def load() -> None:
        start = 0
        with server.stub() as stub:
            while not stop.is_set():
                missing = list(range(start, start + 50))
                while missing:
                    try:
                        for batch in stub.Stream(batches(missing)):
                            for result in batch.results:
                                assert result.status in (0, 14), result
                                if result.status == 0:
                                    answered.add(result.id)
                    except grpc.RpcError as error:
                        unanswered.append(error.code())
                    missing = [n for n in missing if n not in answered]
                start += 50

    thread = threading.Thread(target=load)
    thread.start()
    for _ in range(8):
        before = len(answered)
        wait_for("60 more answers", lambda before=before: len(answered) > before + 60)
        current = restart(make_server, current)
    stop.set()
    thread.join()
    assert len(answered) > 400
    assert set(unanswered) <= {grpc.StatusCode.UNAVAILABLE}


def test_accepted_operations_are_answered(make_server: Callable[..., Server]) -> None:
    """A queue of work when the drain begins: all of it is done and answered before the connection closes."""
    server = make_server(shards=1, backend="software")
    with RawClient(server.connect()) as client:
        stream = client.open("Stream")
        message = pb.OperationBatch(operations=[operation(server, n) for n in range(100)])
        client.data(stream, grpc_frame(message.SerializeToString()))
        client.ping()
        server.data_plane.drain()
        answer = client.wait(stream)
        client.wait_closed()
        assert client.goaway is not None
        assert client.goaway.error_code == 0
    assert server.data_plane.wait_drained(10)
    results = [r for m in answer.messages() for r in pb.ResultBatch.FromString(m).results]
    assert [r.status for r in results] == [0] * 100
    assert answer.status == "14"  # the stream was still open: connect again


def test_two_phases(server: Server) -> None:
    """Notice first (no call refused), the final GOAWAY only when the client has seen the notice."""
    with RawClient(server.connect()) as client:
        client.ping()
        server.data_plane.drain()
        while client.goaway is None:
            client.step_without_ping_ack()
        assert client.goaway.last_stream_id == 2**31 - 1
        late = client.open("Sign")  # crosses the notice on the wire
        client.data(late, grpc_frame(request(server).SerializeToString()), end=True)
        assert client.wait(late).status == "0"
        client.goaway = None
        client.acknowledge_pings()
        client.wait_closed()
        assert client.goaway is not None
        assert client.goaway.last_stream_id == late
    assert server.data_plane.wait_drained(10)


def test_idle_connections_close_at_once(server: Server) -> None:
    clients = [RawClient(server.connect()) for _ in range(50)]
    for client in clients:
        client.ping()
    began = time.monotonic()
    server.data_plane.drain()
    for client in clients:
        client.wait_closed()
        client.socket.close()
    assert server.data_plane.wait_drained(10)
    assert time.monotonic() - began < 5  # the drain timeout: it was not needed
    assert server.data_plane.statistics()["connections"] == 0


def test_watchers_are_told(server: Server) -> None:
    server.data_plane.set_identities([identity("www", [])])
    with server.stub() as stub:
        watch = stub.WatchIdentity(pb.WatchIdentityRequest(identity="www"))
        next(watch)
        server.data_plane.drain()
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.data_plane.wait_drained(10)


@pytest.mark.parametrize("method", ["Stream", "WatchIdentities"])
def test_a_call_that_a_drain_ends_within_its_headers_is_not_begun(server: Server, method: str) -> None:
    """Its block of headers is in two frames, between which the client may send nothing, not even an answer to PING."""
    with RawClient(server.connect()) as client:
        client.ping()
        begun = client.request(headers(method, grpc_timeout="100S"), flags=[])
        block, stream = begun.data, begun.stream_id
        begun.data = block[:-1]
        client.send(begun)
        server.data_plane.drain()
        while client.goaway is None or client.goaway.last_stream_id != stream:
            client.step_without_ping_ack()
        answer = client.wait(stream)
        assert (answer.ended, answer.status) == (True, "14")
        client.send(ContinuationFrame(stream, block[-1:], flags=["END_HEADERS"]))
        client.wait_closed()
        assert client.answers == {stream: answer}
        assert (answer.data, answer.reset) in ((b"", None), (b"", 0))
    assert server.data_plane.wait_drained(10)
    assert server.data_plane.statistics()["watchers"] == 0


def test_drain_ends_at_its_timeout(make_server: Callable[..., Server]) -> None:
    """Clients that do not react: one ignores the PING, one keeps a call open."""
    server = make_server(drain_timeout_ms=300)
    deaf = server.connect()
    with RawClient(server.connect()) as client:
        client.open("Sign")
        client.ping()
        server.data_plane.drain()
        assert server.data_plane.wait_drained(10)
        client.wait_closed()
    deaf.close()


def test_busy_streams_are_refused_after_half_the_timeout(make_server: Callable[..., Server]) -> None:
    server = make_server(drain_timeout_ms=1000)
    statuses: list[int] = []
    with RawClient(server.connect()) as client:
        stream = client.open("Stream")
        client.ping()
        server.data_plane.drain()
        answer = client.answer(stream)
        while not answer.ended and not client.closed:
            message = pb.OperationBatch(operations=[operation(server, 1, "p256")])
            try:
                client.data(stream, grpc_frame(message.SerializeToString()))
            except BrokenPipeError:
                client.wait_closed()  # what was said before
                break
            before = len(answer.data)
            while len(answer.data) == before and not answer.ended and client.step() is not None:
                pass
            time.sleep(0.002)
        for message_bytes in answer.messages():
            statuses += [r.status for r in pb.ResultBatch.FromString(message_bytes).results]
    assert statuses[0] == 0
    assert set(statuses) <= {0, 14}
    assert statuses == sorted(statuses)
    # On a busy machine the client may have been quiet for long enough to have its stream ended before that.
    assert 14 in statuses or answer.status == "14"
    assert server.data_plane.wait_drained(10)


def test_listeners_are_let_go(server: Server) -> None:
    """The data plane's copy of the listening socket is closed: a successor that has it too gets all connections."""
    server.data_plane.drain()
    assert server.data_plane.wait_drained(10)
    server.listeners["main"].close()
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    with pytest.raises(ValueError, match="draining"):
        server.listen("late")


def test_after_the_end(server: Server) -> None:
    server.data_plane.stop()
    server.data_plane.stop()
    assert server.data_plane.wait_drained(0)
    with pytest.raises(RuntimeError, match="stopped"):
        server.data_plane.start()
    with pytest.raises(RuntimeError, match="stopped"):
        server.data_plane.drain()
    with pytest.raises(RuntimeError, match="stopped"):
        server.data_plane.set_identities([])
    assert server.data_plane.statistics()["connections"] == 0


def test_stop_under_load_does_not_wait_for_clients(make_server: Callable[..., Server]) -> None:
    server = make_server(backend="software")
    clients = [RawClient(server.connect()) for _ in range(10)]
    # One that is not accepted yet is not the data plane's to close: it waits at the listening socket, which is ours.
    wait_for("all connections", lambda: server.data_plane.statistics()["connections"] == len(clients))
    message = pb.OperationBatch(operations=[operation(server, n) for n in range(200)])
    for client in clients * 2:
        client.data(client.open("Stream"), grpc_frame(message.SerializeToString()))
    wait_for("more than 500 queued", lambda: server.data_plane.statistics()["queued"] > 500)
    server.data_plane.stop()
    for client in clients:
        client.wait_closed()
        client.socket.close()


def test_keys_are_swapped_under_load(server: Server) -> None:
    """Rules are replaced all the time; operations accepted before finish with their key, none fails."""
    key = server.keys["rsa2048"]
    rules: list[KeyRule] = [{"key": key, "usage": "any", "decrypt": False}]
    server.data_plane.set_identities([identity("www", rules)])
    stop = threading.Event()

    def swap() -> None:
        version = 0
        while not stop.is_set():
            version += 1
            server.data_plane.set_identities([identity("www", rules, version=version)])

    thread = threading.Thread(target=swap)
    thread.start()
    with server.stub() as stub:
        batches = [
            pb.OperationBatch(operations=[operation(server, n) for n in range(s, s + 50)]) for s in range(0, 500, 50)
        ]
        results = [r for b in stub.Stream(iter(batches)) for r in b.results]
    stop.set()
    thread.join()
    assert sorted((r.id, r.status) for r in results) == [(n, 0) for n in range(500)]


def test_accepted_operations_outlive_their_key(make_server: Callable[..., Server]) -> None:
    server = make_server(shards=1, backend="software")
    with RawClient(server.connect()) as client:
        stream = client.open("Stream")
        message = pb.OperationBatch(operations=[operation(server, n) for n in range(100)])
        client.data(stream, grpc_frame(message.SerializeToString()))
        client.ping()
        server.data_plane.set_identities([])
        client.data(
            stream, grpc_frame(pb.OperationBatch(operations=[operation(server, 1000)]).SerializeToString()), end=True
        )
        answer = client.wait(stream)
    results = {r.id: r.status for m in answer.messages() for r in pb.ResultBatch.FromString(m).results}
    assert results == {**dict.fromkeys(range(100), 0), 1000: 5}
