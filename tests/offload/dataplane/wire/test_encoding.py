"""C writes, protobuf reads."""

from __future__ import annotations

import ctypes
from ctypes import byref
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.wire.codec import (
    END,
    OK,
    Held,
    Operation,
    Result,
    View,
    as_result,
    operations,
    results,
    u64,
    writer_of,
)


@given(ops=st.lists(operations, max_size=8), cancelled=st.lists(u64, max_size=8))
def test_operations_are_written(native: ctypes.CDLL, ops: list[pb.Operation], cancelled: list[int]) -> None:
    writer, buffer = writer_of(8192)
    for op in ops:
        key_id, data = Held(op.key_id), Held(op.input)
        c_op = Operation(
            op.id,
            key_id.view,
            op.signature_scheme,
            data.view,
            op.prehashed,
            op.timeout_us,
            op.kind == pb.Operation.DECRYPT,
        )
        assert native.wire_append_operation(byref(writer), byref(c_op))
    for number in cancelled:
        assert native.wire_append_cancelled(byref(writer), number)
    assert pb.OperationBatch.FromString(bytes(buffer[: writer.size])) == pb.OperationBatch(
        operations=ops, cancelled=cancelled
    )


def c_result(result: pb.Result) -> tuple[Result, tuple[Held, Held]]:
    output, message = Held(result.output), Held(result.message.encode())
    made = Result(
        result.id,
        result.status,
        output.view,
        message.view,
        result.backend,
        result.batch_size,
        result.queue_us,
        result.run_us,
    )
    return made, (output, message)


@given(st.lists(results, max_size=8))
def test_results_both_ways(native: ctypes.CDLL, expected: list[pb.Result]) -> None:
    writer, buffer = writer_of(16384)
    for result in expected:
        made, held = c_result(result)
        assert native.wire_append_result(byref(writer), byref(made)), held
    written = bytes(buffer[: writer.size])
    assert list(pb.ResultBatch.FromString(written).results) == expected
    held_bytes = Held(pb.ResultBatch(results=expected).SerializeToString())
    reader, result_read, found = View(held_bytes.view.data, held_bytes.view.size), Result(), []
    while (status := native.wire_next_result(byref(reader), byref(result_read))) == OK:
        found.append(as_result(result_read))
    assert (status, found) == (END, expected)


@given(results)
def test_sign_response_is_written(native: ctypes.CDLL, result: pb.Result) -> None:
    writer, buffer = writer_of(1024)
    made, held = c_result(result)
    assert native.wire_append_sign_response(byref(writer), byref(made)), held
    written = bytes(buffer[: writer.size])
    expected: dict[str, Any] = {"backend": result.backend, "batch_size": result.batch_size}
    assert pb.SignResponse.FromString(written) == pb.SignResponse(signature=result.output, **expected)
    assert pb.DecryptResponse.FromString(written) == pb.DecryptResponse(plaintext=result.output, **expected)


@given(result=results, missing=st.integers(1, 64))
def test_nothing_is_written_without_room(native: ctypes.CDLL, result: pb.Result, missing: int) -> None:
    made, held = c_result(result)
    size = len(pb.ResultBatch(results=[result]).SerializeToString())
    writer, buffer = writer_of(max(size - missing, 0))
    assert not native.wire_append_result(byref(writer), byref(made)), held
    assert writer.size == 0
    assert not any(buffer)
