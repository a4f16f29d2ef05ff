"""Protobuf writes, C reads."""

from __future__ import annotations

import ctypes
from ctypes import byref

from hypothesis import given
from hypothesis import strategies as st

from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.wire.codec import (
    END,
    OK,
    Held,
    Operation,
    View,
    as_message,
    blobs,
    identities,
    operations,
    read_batch,
    read_identity,
    u32,
    u64,
    writer_of,
)


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
