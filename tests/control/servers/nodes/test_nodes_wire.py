"""Bytes of all kinds on a node's stream: it ends and says why, and the node's next stream works at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from control.ca.rotation import Event
from control.servers.nodes import SERVICE
from offload.v1 import node_pb2
from tests.control.servers.nodes.world import CART_ID, WEB_ID, Node, World, request

HELLO = node_pb2.NodeMessage(hello=node_pb2.Hello(daemon_version="1")).SerializeToString()
APPLIED = node_pb2.NodeMessage(applied=node_pb2.Applied(version="abcd", problems=["efgh"])).SerializeToString()
NO_TEXT = APPLIED.replace(b"abcd", b"a\xff\xfed")
NO_MESSAGE = "this is not a NodeMessage"
# What a stream may end with: by its own half-close, or with what is wrong with it.
FINE = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


def say(channel: grpc.Channel, token: Sequence[tuple[str, str]], said: Sequence[bytes]) -> tuple[grpc.StatusCode, str]:
    """One stream with these messages: how it ends."""
    answers = channel.stream_stream(f"/{SERVICE}/Connect")(iter(said), metadata=token, timeout=120)
    try:
        for _ in answers:
            pass
    except grpc.RpcError:
        pass  # its status is what is looked at
    return answers.code(), answers.details()


async def works(node: Node) -> None:
    await node.apply(await node.read())
    assert (await node.certificate(CART_ID, request(CART_ID))).status == 0
    node.call.cancel()


@pytest.mark.parametrize(
    "said",
    [
        [b"\xff\xff\xff"],
        [HELLO, b"\xff\xff\xff"],
        [HELLO, NO_TEXT],
        [HELLO, APPLIED, APPLIED[:-1]],
    ],
    ids=["first", "later", "not UTF-8", "cut"],
)
async def test_what_is_no_message_ends_the_stream_and_says_so(world: World, said: list[bytes]) -> None:
    """Without the half-close of the node, whose stream stays open until the control plane ends it."""
    call = world.raw("n1")
    for message in said:
        await call.write(message)

    async def to_its_end() -> None:
        async for _ in call:
            pass

    with pytest.raises(grpc.aio.AioRpcError, match=NO_MESSAGE) as ended:
        await asyncio.wait_for(to_its_end(), 60)
    assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not world.nodes.sessions("n1")
    await works(await world.join("n1"))


async def test_a_rotation_does_not_wait_for_a_stream_that_said_nonsense(world: World) -> None:
    deaf, one, two = world.raw("n1"), await world.join("n1"), await world.join("n2")
    await deaf.write(HELLO)
    await deaf.write(NO_TEXT)
    for node in (one, two):
        await node.apply(await node.read())
    identity = world.control_plane.state.store.get("MeshIdentity", "default", "identity")
    await world.control_plane.rotations.rotate(identity, Event.BEGIN)
    for node in (one, two):
        await node.apply(await node.read())
    for _ in range(1200):
        if all([await world.nodes.has_bundle(name) for name in ("n1", "n2")]):
            break
        await asyncio.sleep(0.05)
    await world.control_plane.rotations.rotate(identity, Event.DISTRIBUTED)


text = st.text(max_size=12) | st.sampled_from(["", CART_ID, WEB_ID, "default", "x" * 5000, "a\nb\x00"])
requests = st.builds(
    node_pb2.CertificateRequest,
    id=st.integers(0, 2**64 - 1),
    mesh=text,
    spiffe_id=text,
    request=st.binary(max_size=60) | st.sampled_from([request(CART_ID), request(WEB_ID), request(CART_ID)[:-1]]),
)
texts = st.lists(text, max_size=4) | st.integers(1, 4000).map(lambda count: ["p"] * count)
good = st.one_of(
    st.builds(lambda one: node_pb2.NodeMessage(certificate_request=one), requests),
    st.builds(lambda some: node_pb2.NodeMessage(serving=node_pb2.Serving(spiffe_ids=some)), texts),
    st.builds(
        lambda version, some: node_pb2.NodeMessage(applied=node_pb2.Applied(version=version, problems=some)),
        text,
        texts,
    ),
    st.builds(
        lambda version, some: node_pb2.NodeMessage(hello=node_pb2.Hello(daemon_version=version, backends=some)),
        text,
        texts,
    ),
).map(lambda message: message.SerializeToString())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(good))
    if data:
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@pytest.mark.slow(seconds=3)
async def test_any_messages(world: World) -> None:
    token = world.token("n1")

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(good | damaged() | st.binary(max_size=60), max_size=8))
    @example([])
    @example([b""])
    def run(said: list[bytes]) -> None:
        code, details = say(channel, token, said)
        assert code in FINE, (code, details)
        assert code is grpc.StatusCode.OK or NO_MESSAGE in details

    # A client of its own, on another thread: asyncio's loses the status of a stream that it still writes to.
    with grpc.insecure_channel(world.address) as channel:
        await asyncio.to_thread(run)
    assert not world.nodes.sessions("n1")
    await works(await world.join("n1"))
