"""Operations and messages that are small to request: they are processed in turns."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hyperframe.frame import SettingsFrame, WindowUpdateFrame

from offload.v1 import private_key_pb2 as pb
from tests.offload.dataplane.grpc.attacks import refusals
from tests.offload.dataplane.grpc.hostile import serves
from tests.offload.dataplane.raw_http2 import RawClient, grpc_frame
from tests.offload.dataplane.serving import Server


def test_tiny_operations_are_answered_in_turns(server: Server) -> None:
    """Two bytes ask for one, and each is refused with a sentence."""
    message = grpc_frame(bytes([0x0A, 0x00]) * 256)
    with RawClient(server.connect(), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**30}) as client:
        client.send(WindowUpdateFrame(0, window_increment=2**30))
        stream = client.open("Stream")
        client.data(stream, message * 30, end=True)
        answer = client.wait(stream)
    assert answer.status == "0"
    assert sum(len(pb.ResultBatch.FromString(m).results) for m in answer.messages()) == 30 * 256


def cancelled(ids: Sequence[int], *, packed: bool) -> bytes:
    if packed:
        return pb.OperationBatch(cancelled=ids).SerializeToString()
    return b"".join(b"\x10" + pb.OperationBatch(cancelled=[n]).SerializeToString()[2:] for n in ids)


@pytest.mark.parametrize("packed", [True, False])
def test_the_cancelled_operations_of_a_message_are_bounded(server: Server, packed: bool) -> None:
    """An id is one byte of a message that is dealt with in one go."""
    with RawClient(server.connect()) as client:
        for count, status in ((4096, "0"), (4097, "3")):
            stream = client.open("Stream")
            client.data(stream, grpc_frame(cancelled([7] * count, packed=packed)), end=True)
            assert client.wait(stream).status == status
        stream = client.open("Stream")
        client.data(stream, grpc_frame(b"\x12\x00" * 4097), end=True)  # fields without any id
        assert client.wait(stream).status == "3"
    assert refusals(server)["too_large"] == 2


def test_messages_of_identities_are_dealt_with_in_turns(server: Server) -> None:
    """As many as a window takes, to watch and to unwatch the same: each is answered, and others are served."""
    message = pb.WatchIdentitiesRequest(watch=["www"], unwatch=["none"] * 255).SerializeToString()
    with RawClient(server.connect()) as client:
        stream = client.open("WatchIdentities")
        client.data(stream, grpc_frame(message) * 300)
        serves(server)
        while stream not in client.windows:  # more than half of the window has been dealt with
            assert client.step() is not None
        client.ping()
        assert client.answer(stream).reset is None
    assert sum(refusals(server).values()) == 0
