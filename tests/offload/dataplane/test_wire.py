"""The C codec against Google's protobuf, in both directions, and on garbage."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_bool, c_int, c_int64, c_size_t, c_ubyte, c_uint32, c_uint64
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from offload.v1 import private_key_pb2 as pb

OK, END, MALFORMED, TOO_LARGE = range(4)
OPERATION, CANCELLED = range(2)
INPUT_MAX = 512 * 1024


class View(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("size", c_size_t))

    def bytes(self) -> bytes:
        return ctypes.string_at(self.data, self.size) if self.size else b""


class Operation(ctypes.Structure):
    _fields_ = (
        ("id", c_uint64),
        ("key_id", View),
        ("signature_scheme", c_uint32),
        ("input", View),
        ("prehashed", c_bool),
        ("timeout_us", c_uint32),
        ("decrypt", c_bool),
        ("kind_unknown", c_bool),
    )


class Result(ctypes.Structure):
    _fields_ = (
        ("id", c_uint64),
        ("status", c_uint32),
        ("output", View),
        ("message", View),
        ("backend", c_uint32),
        ("batch_size", c_uint32),
        ("queue_us", c_uint32),
        ("run_us", c_uint32),
    )


class Item(ctypes.Structure):
    _fields_ = (("kind", c_int), ("operation", Operation), ("cancelled", View))


class Writer(ctypes.Structure):
    _fields_ = (("data", POINTER(c_ubyte)), ("size", c_size_t), ("room", c_size_t))


class SchemeReader(ctypes.Structure):
    _fields_ = (("message", View), ("packed", View))


class Credential(ctypes.Structure):
    _fields_ = (
        ("key_id", View),
        ("chain", View),
        ("schemes", SchemeReader),
        ("dns_names", View),
        ("tls12", c_bool),
        ("not_after", c_int64),
    )


class TrustBundle(ctypes.Structure):
    _fields_ = (("trust_domain", View), ("authorities", View))


class Identity(ctypes.Structure):
    _fields_ = (("name", View), ("version", c_uint64), ("credentials", View), ("trust_bundles", View))


class Held:
    """A view, and the exact-size buffer it points into: reads beyond it are seen by the address sanitizer."""

    def __init__(self, data: bytes) -> None:
        self.buffer = (c_ubyte * max(len(data), 1)).from_buffer_copy(data or b"\0")
        self.view = View(ctypes.addressof(self.buffer), len(data))


u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
blobs = st.binary(max_size=300)
operations = st.builds(
    pb.Operation,
    id=u64,
    key_id=st.binary(max_size=40),
    signature_scheme=u32,
    input=blobs,
    prehashed=st.booleans(),
    timeout_us=u32,
    kind=st.sampled_from([pb.Operation.SIGN, pb.Operation.DECRYPT]),
)
results = st.builds(
    pb.Result,
    id=u64,
    status=u32,
    output=blobs,
    message=st.text(max_size=50),
    backend=st.sampled_from([0, 1, 2]),
    batch_size=u32,
    queue_us=u32,
    run_us=u32,
)
identities = st.builds(
    pb.Identity,
    name=st.text(max_size=60),
    version=u64,
    credentials=st.lists(
        st.builds(
            pb.Credential,
            key_id=st.binary(max_size=40),
            certificate_chain=st.lists(blobs, max_size=3),
            signature_schemes=st.lists(u32, max_size=5),
            tls12=st.booleans(),
            dns_names=st.lists(st.text(max_size=20), max_size=3),
            not_after=st.integers(-(2**63), 2**63 - 1),
        ),
        max_size=3,
    ),
    trust_bundles=st.lists(
        st.builds(pb.TrustBundle, trust_domain=st.text(max_size=20), authorities=st.lists(blobs, max_size=3)),
        max_size=3,
    ),
)


def as_message(operation: Operation) -> pb.Operation:
    return pb.Operation(
        id=operation.id,
        key_id=operation.key_id.bytes(),
        signature_scheme=operation.signature_scheme,
        input=operation.input.bytes(),
        prehashed=operation.prehashed,
        timeout_us=operation.timeout_us,
        kind=pb.Operation.DECRYPT if operation.decrypt else pb.Operation.SIGN,
    )


def as_result(result: Result) -> pb.Result:
    return pb.Result(
        id=result.id,
        status=result.status,
        output=result.output.bytes(),
        message=result.message.bytes().decode(),
        backend=result.backend,
        batch_size=result.batch_size,
        queue_us=result.queue_us,
        run_us=result.run_us,
    )


def read_batch(native: ctypes.CDLL, data: bytes) -> tuple[int, list[tuple[Operation, int]], list[int]]:
    """Final status, operations with their own status, cancelled ids."""
    held = Held(data)
    reader = View(held.view.data, held.view.size)
    item = Item()
    found: list[tuple[Operation, int]] = []
    cancelled: list[int] = []
    while (status := native.wire_next_item(byref(reader), byref(item))) in (OK, TOO_LARGE):
        if item.kind == OPERATION:
            copy = Operation.from_buffer_copy(item.operation)
            copy.held = held
            found.append((copy, status))
            continue
        number = c_uint64()
        while (status := native.wire_next_id(byref(item.cancelled), byref(number))) == OK:
            cancelled.append(number.value)
        if status == MALFORMED:
            break
    return status, found, cancelled


def read_identity(native: ctypes.CDLL, data: bytes) -> tuple[int, pb.Identity]:
    held = Held(data)
    identity = Identity()
    status = native.wire_decode_identity(held.view, byref(identity))
    found = pb.Identity()
    if status != OK:
        return status, found
    found.name = identity.name.bytes().decode()
    found.version = identity.version
    credential, bundle, view, scheme = Credential(), TrustBundle(), View(), c_uint32()
    while native.wire_next_credential(byref(identity.credentials), byref(credential)):
        made = found.credentials.add(
            key_id=credential.key_id.bytes(), tls12=credential.tls12, not_after=credential.not_after
        )
        while native.wire_next_certificate(byref(credential.chain), byref(view)):
            made.certificate_chain.append(view.bytes())
        while native.wire_next_scheme(byref(credential.schemes), byref(scheme)):
            made.signature_schemes.append(scheme.value)
        while native.wire_next_dns_name(byref(credential.dns_names), byref(view)):
            made.dns_names.append(view.bytes().decode())
    while native.wire_next_trust_bundle(byref(identity.trust_bundles), byref(bundle)):
        added = found.trust_bundles.add(trust_domain=bundle.trust_domain.bytes().decode())
        while native.wire_next_authority(byref(bundle.authorities), byref(view)):
            added.authorities.append(view.bytes())
    return status, found


@pytest.fixture(scope="session", autouse=True)
def _signatures(native: ctypes.CDLL) -> None:
    for name in ("operation", "cancelled", "result", "sign_response", "watch_request"):
        getattr(native, f"wire_append_{name}").restype = c_bool
    for name in ("credential", "certificate", "scheme", "dns_name", "trust_bundle", "authority"):
        getattr(native, f"wire_next_{name}").restype = c_bool
    native.wire_append_cancelled.argtypes = [ctypes.c_void_p, c_uint64]
    for name in ("sign_request", "decrypt_request", "watch_request", "identity"):
        getattr(native, f"wire_decode_{name}").argtypes = [View, ctypes.c_void_p]
    native.wire_append_watch_request.argtypes = [ctypes.c_void_p, View]


# --- protobuf writes, C reads -----------------------------------------------------------------------------------------


@given(ops=st.lists(operations, max_size=8), cancelled=st.lists(u64, max_size=8))
def test_operation_batch_is_read(native: ctypes.CDLL, ops: list[pb.Operation], cancelled: list[int]) -> None:
    data = pb.OperationBatch(operations=ops, cancelled=cancelled).SerializeToString()
    status, found, found_cancelled = read_batch(native, data)
    assert status == END
    assert [as_message(op) for op, _ in found] == ops
    assert found_cancelled == cancelled


@given(key_id=blobs, scheme=u32, data=blobs, prehashed=st.booleans())
def test_unary_requests_are_read(native: ctypes.CDLL, key_id: bytes, scheme: int, data: bytes, prehashed: bool) -> None:
    request = pb.SignRequest(key_id=key_id, signature_scheme=scheme, input=data, prehashed=prehashed)
    held, operation = Held(request.SerializeToString()), Operation()
    assert native.wire_decode_sign_request(held.view, byref(operation)) == OK
    assert as_message(operation) == pb.Operation(
        key_id=key_id, signature_scheme=scheme, input=data, prehashed=prehashed, kind=pb.Operation.SIGN
    )
    held = Held(pb.DecryptRequest(key_id=key_id, ciphertext=data).SerializeToString())
    assert native.wire_decode_decrypt_request(held.view, byref(operation)) == OK
    assert as_message(operation) == pb.Operation(key_id=key_id, input=data, kind=pb.Operation.DECRYPT)


@given(name=st.text(max_size=300))
def test_watch_request_both_ways(native: ctypes.CDLL, name: str) -> None:
    request = pb.WatchIdentityRequest(identity=name)
    held, view = Held(request.SerializeToString()), View()
    assert native.wire_decode_watch_request(held.view, byref(view)) == OK
    assert view.bytes() == name.encode()
    writer, buffer = writer_of(2000)
    assert native.wire_append_watch_request(byref(writer), view)
    assert pb.WatchIdentityRequest.FromString(bytes(buffer[: writer.size])) == request


@given(identities)
def test_identity_is_read(native: ctypes.CDLL, identity: pb.Identity) -> None:
    assert read_identity(native, identity.SerializeToString()) == (OK, identity)


def test_unpacked_and_mixed_schemes_are_read(native: ctypes.CDLL) -> None:
    """proto3 packs repeated numbers, but a reader must take both forms, and both in one message."""
    unpacked, packed, empty = b"\x18\x83\x08", b"\x1a\x04\x84\x10\x87\x10", b"\x1a\x00"
    credential = unpacked + packed + empty + unpacked
    data = b"\x1a" + bytes([len(credential)]) + credential
    status, identity = read_identity(native, data)
    assert status == OK
    assert list(identity.credentials[0].signature_schemes) == [0x0403, 0x0804, 0x0807, 0x0403]
    assert identity == pb.Identity.FromString(data)


# --- C writes, protobuf reads -----------------------------------------------------------------------------------------


def writer_of(room: int) -> tuple[Writer, ctypes.Array[c_ubyte]]:
    buffer = (c_ubyte * max(room, 1))()
    return Writer(ctypes.cast(buffer, POINTER(c_ubyte)), 0, room), buffer


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


# --- hostile input ----------------------------------------------------------------------------------------------------


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
