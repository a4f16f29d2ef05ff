"""Truncated, damaged and oversized messages."""

from __future__ import annotations

import ctypes
from ctypes import byref

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.wire.codec import (
    END,
    INPUT_MAX,
    MALFORMED,
    OK,
    TOO_LARGE,
    Held,
    Operation,
    as_message,
    operations,
    read_batch,
    read_identity,
)


@given(op=operations, size=st.integers(0, 400))
def test_truncation_is_malformed_or_a_prefix(native: ctypes.CDLL, op: pb.Operation, size: int) -> None:
    data = pb.OperationBatch(operations=[op, op]).SerializeToString()
    status, found, _ = read_batch(native, data[:size])
    half = len(data) // 2
    if size >= len(data):
        assert (status, len(found)) == (END, 2)
    elif size in (0, half):
        assert (status, len(found)) == (END, size // half)
    else:
        assert status == MALFORMED
    for read, _ in found:
        assert as_message(read) == op


def parse(kind: type[Message], data: bytes) -> Message | None:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


@settings(max_examples=500)
@given(st.binary(max_size=200))
@example(b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02")
@example(b"\x88\x80\x80\x80\x80\x00\x01")
def test_what_c_accepts_protobuf_reads_the_same_way(native: ctypes.CDLL, data: bytes) -> None:
    status, found, cancelled = read_batch(native, data)
    if status == END:
        expected = parse(pb.OperationBatch, data)
        assert isinstance(expected, pb.OperationBatch)
        known = [op for op in expected.operations if op.kind in (0, 1)]
        assert [as_message(op) for op, _ in found if not op.kind_unknown] == known
        assert cancelled == list(expected.cancelled)
    operation, held = Operation(), Held(data)
    if native.wire_decode_sign_request(held.view, byref(operation)) == OK:
        request = parse(pb.SignRequest, data)
        assert isinstance(request, pb.SignRequest)
        assert operation.key_id.bytes() == request.key_id
        assert operation.signature_scheme == request.signature_scheme
        assert operation.input.bytes() == request.input
        assert operation.prehashed == request.prehashed


@given(st.binary(max_size=300))
def test_garbage_identity_never_breaks_the_readers(native: ctypes.CDLL, data: bytes) -> None:
    """What was accepted is read as protobuf reads it, unknown fields apart; C does not check text to be UTF-8."""
    try:
        status, found = read_identity(native, data)
    except UnicodeDecodeError:
        return
    if status == OK:
        expected = parse(pb.Identity, data)
        assert isinstance(expected, pb.Identity)
        expected.DiscardUnknownFields()
        assert found == expected


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x08\x01", id="operations as a number"),
        pytest.param(b"\x0a\x02\x08", id="message longer than what is there"),
        pytest.param(b"\x0a\x02\x0a\x00", id="id as bytes"),
        pytest.param(b"\x0a\x02\x10\x01", id="key_id as a number"),
        pytest.param(b"\x0b\x0c", id="group"),
        pytest.param(b"\x00\x01", id="field number 0"),
        pytest.param(b"\x12\x01\x80", id="packed id cut short"),
        pytest.param(b"\x15\x00\x00\x00\x00", id="cancelled as fixed32"),
        pytest.param(b"\x10" + b"\xff" * 10, id="varint of more than 64 bits"),
        pytest.param(b"\x07", id="wire type 7"),
    ],
)
def test_malformed_batches(native: ctypes.CDLL, data: bytes) -> None:
    assert read_batch(native, data)[0] == MALFORMED


def test_unknown_fields_are_skipped(native: ctypes.CDLL) -> None:
    unknown = b"\x78\x01" + b"\x7a\x03abc" + b"\x7d1234" + b"\x7912345678"
    status, found, cancelled = read_batch(native, unknown + b"\x0a\x02\x08\x07" + unknown + b"\x10\x05")
    assert status == END
    assert [op.id for op, _ in found] == [7]
    assert cancelled == [5]


def test_unknown_kind_is_reported_for_that_operation_alone(native: ctypes.CDLL) -> None:
    _, found, _ = read_batch(native, b"\x0a\x02\x38\x02" + b"\x0a\x02\x38\x01")
    assert [(op.kind_unknown, op.decrypt) for op, _ in found] == [(True, False), (False, True)]


def test_too_large_input_is_reported_for_that_operation_alone(native: ctypes.CDLL) -> None:
    batch = pb.OperationBatch(operations=[pb.Operation(id=1, input=bytes(INPUT_MAX + 1)), pb.Operation(id=2)])
    status, found, _ = read_batch(native, batch.SerializeToString())
    assert status == END
    assert [(op.id, status) for op, status in found] == [(1, TOO_LARGE), (2, OK)]
