"""Deadlines and cancelling: what nobody waits for any more is not computed."""

from __future__ import annotations

import grpc
import pytest

from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.service.calls import Requests, occupy, operation, sign_request, status_of
from tests.offload.dataplane.serving import (
    Server,
)


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
        wait_for("51 streams", lambda: slow.data_plane.statistics()["streams"] == 51)
        for call in calls:
            call.cancel()
        busy.cancel()
        wait_for("no queued", lambda: slow.data_plane.statistics()["queued"] == 0)
        stub.Sign(sign_request(key))


def test_a_client_that_vanishes_leaves_nothing_behind(slow: Server) -> None:
    for _ in range(20):
        with slow.stub() as stub:
            _held = occupy(slow, stub, 50)
    for gauge in ("queued", "connections", "streams"):
        wait_for(f"no {gauge}", lambda gauge=gauge: dict(slow.data_plane.statistics())[gauge] == 0)
