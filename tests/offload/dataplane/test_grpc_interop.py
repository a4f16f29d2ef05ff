"""Stock grpcio clients against the native server: every method, every status, deadlines, cancelling, floods."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from deploy.node.waiting import wait_for
from offload._dataplane import Key
from offload.v1 import private_key_pb2 as pb
from offload.v1 import private_key_pb2_grpc
from tests.offload.dataplane.serving import (
    ECDSA_P256,
    SCHEMES,
    Server,
    identity,
    tls13_input,
    verify,
    why_turned_away,
)

if TYPE_CHECKING:
    from offload._dataplane import KeyRule

Stub = private_key_pb2_grpc.PrivateKeyServiceStub


def sign_request(key: Key, seed: int = 0, **changes: object) -> pb.SignRequest:
    fields = {"key_id": key.key_id, "signature_scheme": SCHEMES[key.algorithm], "input": tls13_input(seed)}
    return pb.SignRequest(**{**fields, **changes})  # type: ignore[arg-type]


def operation(key: Key, number: int, **changes: object) -> pb.Operation:
    fields = {
        "id": number,
        "key_id": key.key_id,
        "signature_scheme": SCHEMES[key.algorithm],
        "input": tls13_input(number),
    }
    return pb.Operation(**{**fields, **changes})  # type: ignore[arg-type]


# `...`: a lambda in a loop has the loop's variables as its defaults.
def status_of(call: Callable[..., object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


class Requests:
    """What a streaming client will send: an iterator that others feed."""

    def __init__(self) -> None:
        self.queue: queue.Queue[pb.OperationBatch | None] = queue.Queue()

    def __iter__(self) -> Iterator[pb.OperationBatch]:
        while (batch := self.queue.get()) is not None:
            yield batch

    def send(self, *operations: pb.Operation, cancelled: tuple[int, ...] = ()) -> None:
        self.queue.put(pb.OperationBatch(operations=operations, cancelled=cancelled))

    def close(self) -> None:
        self.queue.put(None)


# --- unary ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["rsa2048", "p256", "p384", "ed25519"])
def test_signatures_verify(server: Server, algorithm: str) -> None:
    key = server.keys[algorithm]
    with server.stub() as stub:
        for seed in range(3):
            response = stub.Sign(sign_request(key, seed))
            verify(key.public_key_der, SCHEMES[algorithm], response.signature, tls13_input(seed))
            assert response.backend in (pb.BACKEND_SOFTWARE, pb.BACKEND_IFMA8)
            assert response.batch_size == 1


@pytest.mark.parametrize("scheme", [0x0401, 0x0501, 0x0601, 0x0804, 0x0805, 0x0806])
def test_rsa_schemes_verify(server: Server, scheme: int) -> None:
    key = server.keys["rsa2048"]
    with server.stub() as stub:
        response = stub.Sign(sign_request(key, signature_scheme=scheme, input=b"anything"))
    verify(key.public_key_der, scheme, response.signature, b"anything")


def test_digests_are_signed_where_any_is_allowed(server: Server) -> None:
    key, data = server.keys["p256"], b"to be hashed by the client"
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    with server.stub() as stub:
        response = stub.Sign(sign_request(key, input=digest.finalize(), prehashed=True))
        verify(key.public_key_der, ECDSA_P256, response.signature, data)
        code, _ = status_of(lambda: stub.Sign(sign_request(key, input=b"short", prehashed=True)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_decrypt(server: Server) -> None:
    key = server.keys["rsa2048"]
    public = load_der_public_key(key.public_key_der)
    assert isinstance(public, rsa.RSAPublicKey)
    secret = b"\x03\x03" + bytes(range(46))
    with server.stub() as stub:
        encrypted = public.encrypt(secret, padding.PKCS1v15())
        assert stub.Decrypt(pb.DecryptRequest(key_id=key.key_id, ciphertext=encrypted)).plaintext == secret
        # Implicit rejection: 48 bytes that depend on key and ciphertext alone, no error.
        broken = bytes([encrypted[0] ^ 1]) + encrypted[1:]
        answers = {stub.Decrypt(pb.DecryptRequest(key_id=key.key_id, ciphertext=broken)).plaintext for _ in range(2)}
        assert len(answers) == 1
        assert len(answers.pop()) == 48
        code, _ = status_of(lambda: stub.Decrypt(pb.DecryptRequest(key_id=key.key_id, ciphertext=encrypted[1:])))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        not_rsa = pb.DecryptRequest(key_id=server.keys["p256"].key_id, ciphertext=encrypted)
        assert status_of(lambda: stub.Decrypt(not_rsa))[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"key_id": b"short"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"key_id": b""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"key_id": b"?" * 32}, grpc.StatusCode.NOT_FOUND),
        ({"signature_scheme": 0}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"signature_scheme": 0x0804}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"signature_scheme": 0x10403}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"signature_scheme": 2**32 - 1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"input": bytes(512 * 1024 + 1)}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_refused_requests(server: Server, changes: dict[str, Any], code: grpc.StatusCode) -> None:
    with server.stub() as stub:
        found, details = status_of(lambda: stub.Sign(sign_request(server.keys["p256"], **changes)))
        assert found is code
        assert details
        stub.Sign(sign_request(server.keys["p256"]))  # the connection is as good as ever


def test_largest_input_is_signed(server: Server) -> None:
    key, data = server.keys["p256"], bytes(512 * 1024)
    with server.stub() as stub:
        verify(key.public_key_der, ECDSA_P256, stub.Sign(sign_request(key, input=data)).signature, data)


def test_500_unary_calls_in_flight(server: Server) -> None:
    key = server.keys["p256"]
    with server.stub() as stub:
        calls = [stub.Sign.future(sign_request(key, seed)) for seed in range(500)]
        for seed, call in enumerate(calls):
            verify(key.public_key_der, ECDSA_P256, call.result(timeout=60).signature, tls13_input(seed))
    assert sum(n for (status, _), n in server.operations("p256").items() if status == "OK") == 500


async def test_500_aio_calls_in_flight(server: Server) -> None:
    key = server.keys["p256"]
    async with grpc.aio.insecure_channel(server.target()) as channel:
        stub = private_key_pb2_grpc.PrivateKeyServiceStub(channel)
        responses = await asyncio.gather(*(stub.Sign(sign_request(key, seed)) for seed in range(500)))
    for seed, response in enumerate(responses):
        verify(key.public_key_der, ECDSA_P256, response.signature, tls13_input(seed))


def test_many_threads_and_channels(server: Server) -> None:
    names = ["p256", "rsa2048", "ed25519", "p384"]

    def client(number: int) -> None:
        key = server.keys[names[number % len(names)]]
        with server.stub() as stub:
            for seed in range(20):
                response = stub.Sign(sign_request(key, seed))
                verify(key.public_key_der, SCHEMES[key.algorithm], response.signature, tls13_input(seed))

    with futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(client, range(16)))
    assert server.plane.statistics()["connections_total"] == 16


# --- stream -----------------------------------------------------------------------------------------------------------


def test_stream_answers_every_operation_once(server: Server) -> None:
    keys = [server.keys[name] for name in ("p256", "ed25519", "p384", "rsa2048")]
    count = 400
    batches = [
        pb.OperationBatch(operations=[operation(keys[n % 4], n) for n in range(start, start + 40)])
        for start in range(0, count, 40)
    ]
    with server.stub() as stub:
        results = [result for batch in stub.Stream(iter(batches)) for result in batch.results]
    assert sorted(r.id for r in results) == list(range(count))
    for result in results:
        key = keys[result.id % 4]
        assert (result.status, result.message) == (0, "")
        assert 1 <= result.batch_size <= 8
        verify(key.public_key_der, SCHEMES[key.algorithm], result.output, tls13_input(result.id))


async def test_aio_stream_in_lockstep_and_in_bulk(server: Server) -> None:
    key = server.keys["p256"]
    async with grpc.aio.insecure_channel(server.target()) as channel:
        stub = private_key_pb2_grpc.PrivateKeyServiceStub(channel)
        stream = stub.Stream()
        for number in range(20):
            await stream.write(pb.OperationBatch(operations=[operation(key, number)]))
            (result,) = (await stream.read()).results
            assert result.id == number
            verify(key.public_key_der, ECDSA_P256, result.output, tls13_input(number))
        for number in range(500):
            await stream.write(pb.OperationBatch(operations=[operation(key, number)]))
        await stream.done_writing()
        seen: list[int] = []
        while (batch := await stream.read()) is not grpc.aio.EOF:
            seen += [result.id for result in batch.results]
    assert sorted(seen) == list(range(500))


def test_errors_in_a_stream_are_per_operation(server: Server) -> None:
    key = server.keys["p256"]
    operations = [
        operation(key, 1),
        operation(key, 2, key_id=b"?" * 32),
        operation(key, 3, key_id=b""),
        operation(key, 4, signature_scheme=0x0804),
        operation(key, 5, input=bytes(530_000)),
        operation(key, 6, kind=pb.Operation.DECRYPT),
        operation(key, 7, input=b"x", prehashed=True),
        operation(key, 8),
        operation(key, 9, kind=77),
    ]
    with server.stub() as stub:
        results = {r.id: r for b in stub.Stream(iter([pb.OperationBatch(operations=operations)])) for r in b.results}
    assert {n: r.status for n, r in results.items()} == {1: 0, 2: 5, 3: 3, 4: 3, 5: 3, 6: 3, 7: 3, 8: 0, 9: 3}
    assert all(bool(r.message) == (r.status != 0) == (not r.output) for r in results.values())


def test_full_batches_are_made_across_connections(server: Server) -> None:
    key = server.keys["rsa2048"]

    def client(_: int) -> None:
        with server.stub() as stub:
            batches = [pb.OperationBatch(operations=[operation(key, n)]) for n in range(30)]
            assert sum(len(b.results) for b in stub.Stream(iter(batches))) == 30

    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    (statistics,) = [c for c in server.plane.statistics()["classes"] if c["algorithm"] == "rsa2048"]
    assert sum(size * n for (_, _, size), n in statistics["batches"].items()) == 240
    assert sum(statistics["queue_seconds"]) == 240
    assert sum(statistics["run_seconds"]) == sum(statistics["batches"].values())


def test_too_many_operations_in_a_message(server: Server) -> None:
    key = server.keys["p256"]
    batch = pb.OperationBatch(operations=[operation(key, n) for n in range(257)])
    with server.stub() as stub:
        code, details = status_of(lambda: list(stub.Stream(iter([batch]))))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "256" in details


# --- deadlines and cancelling -----------------------------------------------------------------------------------------


@pytest.fixture
def slow(make_server: Callable[..., Server]) -> Server:
    """One shard, software: a queue of RSA operations takes long enough to be looked at."""
    return make_server(shards=1, backend="software")


def occupy(server: Server, stub: Stub, count: int = 100) -> tuple[Requests, grpc.Call]:
    """Gives the only shard `count` RSA operations to do; the last is finished long after this returns.

    Keep what is returned: grpcio cancels a call that nobody refers to.
    """
    requests = Requests()
    call = stub.Stream(iter(requests))
    for start in range(0, count, 250):
        requests.send(*(operation(server.keys["rsa2048"], 10**6 + n) for n in range(start, min(start + 250, count))))
    wait_for("queued", lambda: server.plane.statistics()["queued"] > 0)
    return requests, call


def test_deadline_of_a_queued_unary_call(slow: Server) -> None:
    with slow.stub() as stub:
        _held = occupy(slow, stub, 200)  # of the same connection, so it is first in, first out
        code, _ = status_of(lambda: stub.Sign(sign_request(slow.keys["rsa2048"]), timeout=0.005))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_server_keeps_the_deadline_itself(slow: Server) -> None:
    """grpc-timeout counts even if the client does not cancel: seen in the refusals, and the operation is not run."""
    with slow.stub() as stub:
        _held = occupy(slow, stub, 200)
        call = stub.Sign.future(sign_request(slow.keys["rsa2048"]), timeout=0.01)
        with pytest.raises(grpc.RpcError):
            call.result()
        # Whoever was first, the client's reset or our own clock: it left the queue without being run.
        ended = {("CANCELLED", "none"), ("DEADLINE_EXCEEDED", "none")}
        wait_for("the end of the operation", lambda: bool(ended & slow.operations("rsa2048").keys()))


def test_timeout_of_an_operation_in_a_stream(slow: Server) -> None:
    key = slow.keys["rsa2048"]
    with slow.stub() as stub:
        requests, call = occupy(slow, stub, 60)
        requests.send(operation(key, 1, timeout_us=1000), operation(key, 2, timeout_us=60_000_000), operation(key, 3))
        requests.close()
        results = {r.id: r for b in call for r in b.results}
    assert results[1].status == 4
    assert (results[2].status, results[3].status) == (0, 0)
    assert slow.operations("rsa2048")["DEADLINE_EXCEEDED", "none"] == 1


def test_deadline_of_a_stream(server: Server) -> None:
    requests = Requests()
    with server.stub() as stub:
        code, _ = status_of(lambda: list(stub.Stream(iter(requests), timeout=0.05)))
        requests.close()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_cancelled_ids_are_dropped_and_not_answered(slow: Server) -> None:
    key = slow.keys["rsa2048"]
    with slow.stub() as stub:
        requests, call = occupy(slow, stub, 40)
        requests.send(*(operation(key, n) for n in range(20)))
        requests.send(cancelled=(*range(10), 12345))
        requests.close()
        answered = {r.id for b in call for r in b.results}
    assert answered == set(range(10, 20)) | set(range(10**6, 10**6 + 40))
    assert slow.operations("rsa2048")["CANCELLED", "none"] == 10


def test_cancel_in_the_same_message(slow: Server) -> None:
    key = slow.keys["rsa2048"]
    batch = pb.OperationBatch(operations=[operation(key, n) for n in range(5)], cancelled=[0, 1, 2])
    with slow.stub() as stub:
        _held = occupy(slow, stub, 20)
        assert {r.id for b in stub.Stream(iter([batch])) for r in b.results} == {3, 4}


def test_cancelled_calls_leave_the_queue(slow: Server) -> None:
    key = slow.keys["rsa2048"]
    with slow.stub() as stub:
        _requests, busy = occupy(slow, stub, 900)
        calls = [stub.Sign.future(sign_request(key, n)) for n in range(50)]
        wait_for("51 streams", lambda: slow.plane.statistics()["streams"] == 51)
        for call in calls:
            call.cancel()
        busy.cancel()
        wait_for("no queued", lambda: slow.plane.statistics()["queued"] == 0)
        stub.Sign(sign_request(key))


def test_a_client_that_vanishes_leaves_nothing_behind(slow: Server) -> None:
    for _ in range(20):
        with slow.stub() as stub:
            _held = occupy(slow, stub, 50)
    for gauge in ("queued", "connections", "streams"):
        wait_for(f"no {gauge}", lambda gauge=gauge: dict(slow.plane.statistics())[gauge] == 0)


# --- bounds -----------------------------------------------------------------------------------------------------------


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
        assert server.plane.statistics()["refusals"]["connection_queue_full"] == 40
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
        wait_for("at least 150 queue full", lambda: server.plane.statistics()["refusals"]["queue_full"] >= 150)
        call.cancel()


def test_limits_change_while_it_runs(make_server: Callable[..., Server]) -> None:
    server = make_server(shards=1, backend="software", queue_limit=4096, max_wait_us=1000)
    for limits in ((1001, 20), (1000, 4097), (1000, 0)):
        with pytest.raises(ValueError, match="max_wait_us 1000, queue_limit 1 to 4096"):
            server.plane.set_limits(*limits)
    server.plane.set_limits(0, 20)
    with server.stub() as stub:
        _requests, call = occupy(server, stub, 200)
        # All were in one message, so most found the queue full; they are counted a moment after the others are in.
        wait_for("at least 150 queue full", lambda: server.plane.statistics()["refusals"]["queue_full"] >= 150)
        call.cancel()
    wait_for("no queued", lambda: server.plane.statistics()["queued"] == 0)
    server.plane.set_limits(1000, 4096)
    before = server.plane.statistics()["refusals"]["queue_full"]
    with server.stub() as stub:
        _requests, call = occupy(server, stub, 200)
        call.cancel()
    assert server.plane.statistics()["refusals"]["queue_full"] == before


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
            wait_for("more than 400 queued", lambda: server.plane.statistics()["queued"] > 400)
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
    assert server.plane.statistics()["refusals"]["too_many_connections"] >= 1
    for connection in held:
        connection.close()
    wait_for("no connections", lambda: server.plane.statistics()["connections"] == 0)
    with server.stub() as stub:
        stub.Sign(sign_request(server.keys["p256"]))


def test_1000_idle_connections(server: Server) -> None:
    key = server.keys["p256"]
    idle = [server.connect() for _ in range(1000)]
    try:
        with server.stub() as stub:
            wait_for("at least 1000 connections", lambda: server.plane.statistics()["connections"] >= 1000)
            for seed in range(50):
                verify(key.public_key_der, ECDSA_P256, stub.Sign(sign_request(key, seed)).signature, tls13_input(seed))
    finally:
        for connection in idle:
            connection.close()


# --- messages that are not right --------------------------------------------------------------------------------------


def raw(stub_channel: grpc.Channel, method: str) -> grpc.UnaryUnaryMultiCallable:
    """Sends bytes as they are."""
    return stub_channel.unary_unary(f"/offload.v1.PrivateKeyService/{method}")


@pytest.mark.parametrize("method", ["Sign", "Decrypt", "Stream", "WatchIdentity", "WatchIdentities"])
@pytest.mark.parametrize("garbage", [b"\xff" * 50, b"\x0a\x05abc", b"\x0b", b"\x08\x01\x10"])
def test_garbage_messages(server: Server, method: str, garbage: bytes) -> None:
    with grpc.insecure_channel(server.target()) as channel:
        assert status_of(lambda: raw(channel, method)(garbage))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert server.plane.statistics()["refusals"]["malformed"] == 1


@pytest.mark.parametrize("method", ["Sign", "Stream"])
def test_oversize_messages(server: Server, method: str) -> None:
    with grpc.insecure_channel(server.target()) as channel:
        code, details = status_of(lambda: raw(channel, method)(bytes(600_000)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "576 KiB" in details


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages(server: Server, compression: grpc.Compression) -> None:
    key = server.keys["p256"]
    with server.stub() as stub:
        request = sign_request(key, input=bytes(10_000))
        code, details = status_of(lambda: stub.Sign(request, compression=compression))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert "identity" in details
        stub.Sign(request)


def test_unknown_method_and_service(server: Server) -> None:
    with grpc.insecure_channel(server.target()) as channel:
        for path in ("/offload.v1.PrivateKeyService/Export", "/other.Service/Sign", "/"):
            code, _ = status_of(lambda path=path: channel.unary_unary(path)(b""))
            assert code is grpc.StatusCode.UNIMPLEMENTED


def test_no_message_to_a_unary_method(server: Server) -> None:
    with grpc.insecure_channel(server.target()) as channel:
        for method in ("Sign", "Decrypt", "WatchIdentity"):
            call = channel.stream_unary(f"/offload.v1.PrivateKeyService/{method}")
            assert status_of(lambda call=call: call(iter([])))[0] is grpc.StatusCode.INVALID_ARGUMENT


# --- watching ---------------------------------------------------------------------------------------------------------


def test_watch_follows_changes_and_only_changes(server: Server) -> None:
    rules: list[KeyRule] = [{"key": server.keys["p256"], "usage": "tls13", "decrypt": False}]
    with server.stub() as stub:
        server.plane.set_identities([identity("www", rules, version=1)])
        watch = stub.WatchIdentity(pb.WatchIdentityRequest(identity="www"))
        first = next(watch)
        assert (first.name, first.version) == ("www", 1)
        assert first.credentials[0].key_id == server.keys["p256"].key_id
        server.plane.set_identities([identity("www", rules, version=1), identity("other", rules)])
        server.plane.set_identities([identity("other", rules), identity("www", rules, version=2)])
        assert next(watch).version == 2
        assert server.plane.statistics()["watchers"] == 1
        server.plane.set_identities([identity("other", rules)])
        assert status_of(lambda: next(watch))[0] is grpc.StatusCode.NOT_FOUND
    assert server.plane.statistics()["watchers"] == 0


def test_watch_of_a_large_identity(server: Server) -> None:
    """A chain and a bundle of all public CAs: more than a frame and more than a client's window."""
    message = pb.Identity(name="www", version=1)
    message.trust_bundles.add(authorities=[bytes([n]) * 1500 for n in range(250)])
    server.plane.set_identities([{**identity("www", []), "message": message.SerializeToString()}])
    with server.stub() as stub:
        watch = stub.WatchIdentity(pb.WatchIdentityRequest(identity="www"))
        assert next(watch) == message
        watch.cancel()


def test_watch_of_unknown_and_forbidden_looks_the_same(server: Server) -> None:
    server.plane.set_identities([identity("theirs", [], selectors=[{"uid": 4_000_000}]), identity("nobodys", [], [])])
    with server.stub() as stub:
        answers = {
            status_of(lambda name=name: next(stub.WatchIdentity(pb.WatchIdentityRequest(identity=name))))
            for name in ("theirs", "nobodys", "unknown", "")
        }
    assert len(answers) == 1
    assert answers.pop()[0] is grpc.StatusCode.NOT_FOUND


def test_many_watchers_all_hear_of_every_last_change(server: Server) -> None:
    server.plane.set_identities([identity("www", [], version=0)])
    with server.stub() as stub:
        watches = [stub.WatchIdentity(pb.WatchIdentityRequest(identity="www")) for _ in range(50)]
        for watch in watches:
            assert next(watch).version == 0
        for version in range(1, 30):
            server.plane.set_identities([identity("www", [], version=version)])
        for watch in watches:
            seen = 0
            while seen != 29:
                version = next(watch).version
                assert version > seen
                seen = version


async def test_aio_watch(server: Server) -> None:
    server.plane.set_identities([identity("www", [], version=5)])
    async with grpc.aio.insecure_channel(server.target()) as channel:
        watch: AsyncIterator[pb.Identity] = private_key_pb2_grpc.PrivateKeyServiceStub(channel).WatchIdentity(
            pb.WatchIdentityRequest(identity="www")
        )
        async for message in watch:
            assert message.version == 5
            break


# --- uses of keys, for the audit log ----------------------------------------------------------------------------------


def test_uses_are_counted_by_caller_key_scheme_and_result(server: Server) -> None:
    server.plane.count_key_uses(True)
    with server.stub() as stub:
        for algorithm, count in (("p256", 3), ("rsa2048", 2)):
            key = server.keys[algorithm]
            for number in range(count):
                request = pb.SignRequest(
                    key_id=key.key_id, signature_scheme=SCHEMES[algorithm], input=tls13_input(number)
                )
                assert stub.Sign(request, timeout=20).signature
    uses, unlisted = server.plane.take_key_uses()
    found = {(use["key_id"], use["scheme"], use["status"]): use["count"] for use in uses}
    assert found == {
        (server.keys["p256"].key_id, SCHEMES["p256"], "OK"): 3,
        (server.keys["rsa2048"].key_id, SCHEMES["rsa2048"], "OK"): 2,
    }
    assert {(use["pid"], use["uid"], use["listener"]) for use in uses} == {(os.getpid(), os.getuid(), "main")}
    assert unlisted == 0
    assert server.plane.take_key_uses() == ([], 0)
    server.plane.count_key_uses(False)
    with server.stub() as stub:
        request = pb.SignRequest(
            key_id=server.keys["p256"].key_id, signature_scheme=SCHEMES["p256"], input=tls13_input(9)
        )
        assert stub.Sign(request, timeout=20).signature
    assert server.plane.take_key_uses() == ([], 0)
