"""The call WatchIdentity by grpcio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc

from offload.v1 import private_key_pb2 as pb
from offload.v1 import private_key_pb2_grpc
from tests.offload.dataplane.service.calls import status_of
from tests.offload.dataplane.serving import (
    Server,
    identity,
)

if TYPE_CHECKING:
    from offload._dataplane import KeyRule


def test_watch_follows_changes_and_only_changes(server: Server) -> None:
    rules: list[KeyRule] = [{"key": server.keys["p256"], "usage": "tls13", "decrypt": False}]
    with server.stub() as stub:
        server.data_plane.set_identities([identity("www", rules, version=1)])
        watch = stub.WatchIdentity(pb.WatchIdentityRequest(identity="www"))
        first = next(watch)
        assert (first.name, first.version) == ("www", 1)
        assert first.credentials[0].key_id == server.keys["p256"].key_id
        server.data_plane.set_identities([identity("www", rules, version=1), identity("other", rules)])
        server.data_plane.set_identities([identity("other", rules), identity("www", rules, version=2)])
        assert next(watch).version == 2
        assert server.data_plane.statistics()["watchers"] == 1
        server.data_plane.set_identities([identity("other", rules)])
        assert status_of(lambda: next(watch))[0] is grpc.StatusCode.NOT_FOUND
    assert server.data_plane.statistics()["watchers"] == 0


def test_watch_of_a_large_identity(server: Server) -> None:
    """A chain and a bundle of all public CAs: more than a frame and more than a client's window."""
    message = pb.Identity(name="www", version=1)
    message.trust_bundles.add(authorities=[bytes([n]) * 1500 for n in range(250)])
    server.data_plane.set_identities([{**identity("www", []), "message": message.SerializeToString()}])
    with server.stub() as stub:
        watch = stub.WatchIdentity(pb.WatchIdentityRequest(identity="www"))
        assert next(watch) == message
        watch.cancel()


def test_watch_of_unknown_and_forbidden_looks_the_same(server: Server) -> None:
    server.data_plane.set_identities(
        [identity("theirs", [], selectors=[{"uid": 4_000_000}]), identity("nobodys", [], [])]
    )
    with server.stub() as stub:
        answers = {
            status_of(lambda name=name: next(stub.WatchIdentity(pb.WatchIdentityRequest(identity=name))))
            for name in ("theirs", "nobodys", "unknown", "")
        }
    assert len(answers) == 1
    assert answers.pop()[0] is grpc.StatusCode.NOT_FOUND


def test_many_watchers_all_hear_of_every_last_change(server: Server) -> None:
    server.data_plane.set_identities([identity("www", [], version=0)])
    with server.stub() as stub:
        watches = [stub.WatchIdentity(pb.WatchIdentityRequest(identity="www")) for _ in range(50)]
        for watch in watches:
            assert next(watch).version == 0
        for version in range(1, 30):
            server.data_plane.set_identities([identity("www", [], version=version)])
        for watch in watches:
            seen = 0
            while seen != 29:
                version = next(watch).version
                assert version > seen
                seen = version


async def test_aio_watch(server: Server) -> None:
    server.data_plane.set_identities([identity("www", [], version=5)])
    async with grpc.aio.insecure_channel(server.target()) as channel:
        watch: AsyncIterator[pb.Identity] = private_key_pb2_grpc.PrivateKeyServiceStub(channel).WatchIdentity(
            pb.WatchIdentityRequest(identity="www")
        )
        async for message in watch:
            assert message.version == 5
            break
