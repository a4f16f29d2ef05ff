"""Requests for the tests of the gRPC service, and what comes of them."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

import grpc
import pytest

from deploy.node.waiting import wait_for
from offload._dataplane import Key
from offload.v1 import private_key_pb2 as pb
from offload.v1 import private_key_pb2_grpc
from tests.offload.dataplane.serving import (
    SCHEMES,
    Server,
    tls13_input,
)

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


def occupy(server: Server, stub: Stub, count: int = 100) -> tuple[Requests, grpc.Call]:
    """Gives the only shard `count` RSA operations to do; the last is finished long after this returns.

    Keep what is returned: grpcio cancels a call that nobody refers to.
    """
    requests = Requests()
    call = stub.Stream(iter(requests))
    for start in range(0, count, 250):
        requests.send(*(operation(server.keys["rsa2048"], 10**6 + n) for n in range(start, min(start + 250, count))))
    wait_for("queued", lambda: server.data_plane.statistics()["queued"] > 0)
    return requests, call
