"""The call Stream by grpcio: every operation is answered once."""

from __future__ import annotations

from concurrent import futures

import grpc

from offload.v1 import private_key_pb2 as pb
from offload.v1 import private_key_pb2_grpc
from tests.offload.dataplane.service.calls import operation, status_of
from tests.offload.dataplane.serving import (
    ECDSA_P256,
    SCHEMES,
    Server,
    tls13_input,
    verify,
)


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
    (statistics,) = [c for c in server.data_plane.statistics()["classes"] if c["algorithm"] == "rsa2048"]
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
