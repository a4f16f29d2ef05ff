"""The C codec through ctypes: its structures, random messages, and messages as Python sees them."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_bool, c_int, c_int64, c_size_t, c_ubyte, c_uint32, c_uint64

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


def writer_of(room: int) -> tuple[Writer, ctypes.Array[c_ubyte]]:
    buffer = (c_ubyte * max(room, 1))()
    return Writer(ctypes.cast(buffer, POINTER(c_ubyte)), 0, room), buffer
