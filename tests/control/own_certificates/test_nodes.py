"""Node certificates: how a node gets one, whom the port for nodes lets in, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from control.kinds import KINDS
from control.model.resource import Resource
from control.own_certificates.nodes import COME_BACK, LIFETIME, NodeCertificates, NodeClaims
from control.own_certificates.serving import ServingCertificate
from control.reconcile.control_plane import ControlPlane
from control.servers.nodes import NodeServer
from control.servers.strangers import STRANGERS_PER_ADDRESS
from control.store.database import StoreKey
from control.store.store import Store
from control.tokens.tokens import InvalidToken, Tokens
from offload._dataplane import Key
from offload.mesh.node_certificate import NodeCertificate, Request, make_request, proof, take
from offload.v1 import node_pb2, node_pb2_grpc
from tests.control.servers.nodes.world import CART_ID, DATAPLANES, MESH

Read = Callable[[str], list[Resource]]


@dataclass
class World:
    store: Store
    tokens: Tokens
    certificates: NodeCertificates
    ca: bytes
    port: int
    now: list[datetime]

    def channel(self, certificate: NodeCertificate | None) -> grpc.aio.Channel:
        if certificate is None:
            return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", grpc.ssl_channel_credentials(self.ca))
        credentials = grpc.ssl_channel_credentials(self.ca, certificate.key_pem, certificate.chain_pem)
        return grpc.aio.secure_channel(certificate.address, credentials)

    async def join(self, shown: NodeCertificate | None, token: str = "", request: Request | None = None) -> Any:
        request = request or make_request()
        metadata = [("authorization", f"Bearer {token}")] if token else []
        async with self.channel(shown) as channel:
            stub = node_pb2_grpc.NodeServiceStub(channel)
            answer = await stub.Join(node_pb2.JoinRequest(request=request.der), metadata=metadata, timeout=20)
        return take(request, answer.certificate_chain, answer.renew_at, f"127.0.0.1:{self.port}", answer.port)

    async def configured(self, shown: NodeCertificate) -> Any:
        """The first message of a stream that shows the certificate and nothing else."""
        async with self.channel(shown) as channel:
            call = node_pb2_grpc.NodeServiceStub(channel).Connect()
            await call.write(node_pb2.NodeMessage(hello=node_pb2.Hello(daemon_version="1")))
            message = await asyncio.wait_for(call.read(), 20)
            call.cancel()
            return message.configuration


@pytest.fixture
async def world(tmp_path: Path, read_resources: Read) -> AsyncIterator[World]:
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    control_plane, tokens, server = ControlPlane(store), Tokens(store), grpc.aio.server()
    now = [datetime.now(UTC)]
    certificates, serving = NodeCertificates(store, lambda: now[0]), ServingCertificate(store, ["127.0.0.1"])
    nodes = NodeServer(control_plane, tokens, certificates)
    nodes.add_to(server)
    port = server.add_secure_port("127.0.0.1:0", serving.grpc_credentials())
    nodes.port = server.add_secure_port("127.0.0.1:0", certificates.grpc_credentials(serving))
    await server.start()
    await control_plane.changes.put_all(read_resources(MESH + DATAPLANES))
    running = asyncio.create_task(control_plane.run())
    yield World(store, tokens, certificates, serving.ca_pem.encode(), port, now)
    await server.stop(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()


async def test_by_token_then_by_certificate(world: World) -> None:
    first = await world.join(None, world.tokens.issue("node", 600, name="n1"))
    leaf = x509.load_pem_x509_certificate(first.chain_pem)
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH], "it is no server"
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < LIFETIME + timedelta(minutes=5)
    configuration = await world.configured(first)
    assert [identity.spiffe_id for identity in configuration.identities] == [CART_ID], "that of n1 and no other"
    second = await world.join(first)
    assert second.chain_pem != first.chain_pem
    assert (await world.configured(second)).version == configuration.version


async def test_the_port_for_nodes_lets_in_nobody_else(world: World, tmp_path: Path) -> None:
    mine = await world.join(None, world.tokens.issue("node", 600, name="n1"))
    token = world.tokens.issue("node", 600, name="n1")
    elsewhere = Store(f"sqlite:///{tmp_path}/other.db", StoreKey(file=tmp_path / "other.key"), KINDS)
    other = NodeCertificates(elsewhere)
    elsewhere.close()
    request = make_request()
    foreign = other.issue(request.der, NodeClaims("n1", "x"))
    stranger = take(request, [foreign.der], foreign.renew_at, mine.address, int(mine.address.rpartition(":")[2]))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.join(stranger, token)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE, "in the handshake"
    async with grpc.aio.secure_channel(mine.address, grpc.ssl_channel_credentials(world.ca)) as channel:
        stub, metadata = node_pb2_grpc.NodeServiceStub(channel), [("authorization", f"Bearer {token}")]
        with pytest.raises(grpc.aio.AioRpcError) as without:
            await stub.Join(node_pb2.JoinRequest(request=request.der), metadata=metadata, timeout=20)
    assert without.value.code() is grpc.StatusCode.UNAVAILABLE, "a token is not enough there"


async def test_a_revoked_token_ends_its_certificates(world: World) -> None:
    token = world.tokens.issue("node", 600, name="n1")
    by_token = await world.join(None, token)
    by_certificate = await world.join(by_token)
    world.tokens.revoke(token)
    for certificate in (by_token, by_certificate):
        with pytest.raises(grpc.aio.AioRpcError, match="was revoked") as refused:
            await world.join(certificate)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_expired_one_counts_no_more(world: World) -> None:
    mine = await world.join(None, world.tokens.issue("node", 600, name="n1"))
    pem = mine.chain_pem
    assert world.certificates.check(pem).name == "n1"
    world.now[0] += LIFETIME
    with pytest.raises(InvalidToken, match="has expired: join with a token"):
        world.certificates.check(pem)


async def _come_back(world: World, ended: NodeCertificate, request: Request, signature: bytes = b"") -> Any:
    certificate, signed = proof(ended, request)
    asked = node_pb2.JoinRequest(request=request.der, ended_certificate=certificate, proof=signature or signed)
    async with world.channel(None) as channel:
        answer = await node_pb2_grpc.NodeServiceStub(channel).Join(asked, timeout=20)
    return take(request, answer.certificate_chain, answer.renew_at, f"127.0.0.1:{world.port}", answer.port)


async def test_a_node_that_was_away_comes_back_by_its_ended_certificate(world: World) -> None:
    """Its token has ended as well. The next certificate is as good as any, and comes back in turn."""
    mine = await world.join(None, world.tokens.issue("node", 600, name="n1"))
    world.now[0] += LIFETIME + COME_BACK - timedelta(minutes=1)
    again = await _come_back(world, mine, make_request())
    assert world.certificates.check(again.chain_pem).name == "n1"
    world.now[0] += timedelta(minutes=2)
    with pytest.raises(grpc.aio.AioRpcError, match="no node token"):
        await _come_back(world, mine, make_request())


async def test_an_ended_certificate_needs_its_key_and_its_token_in_force(world: World) -> None:
    token = world.tokens.issue("node", 600, name="n1")
    mine, other = await world.join(None, token), await world.join(None, token)
    world.now[0] += LIFETIME + timedelta(hours=1)
    request = make_request()
    for signature in (b"x", proof(other, request)[1], proof(mine, make_request())[1]):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _come_back(world, mine, request, signature)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await _come_back(world, mine, request)
    world.tokens.revoke(token)
    with pytest.raises(grpc.aio.AioRpcError) as revoked:
        await _come_back(world, mine, request)
    assert revoked.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("token", "request_der", "code", "says"),
    [
        ("", None, grpc.StatusCode.UNAUTHENTICATED, "no node token"),
        ("nonsense", None, grpc.StatusCode.UNAUTHENTICATED, "this is not a token"),
        ("n1", b"nonsense", grpc.StatusCode.INVALID_ARGUMENT, "not a certificate request"),
        ("n" * 65, None, grpc.StatusCode.INVALID_ARGUMENT, "more than 64 characters"),
    ],
)
async def test_what_is_refused(
    world: World, token: str, request_der: bytes | None, code: grpc.StatusCode, says: str
) -> None:
    made = world.tokens.issue("node", 600, name=token) if token.startswith("n") and token != "nonsense" else token
    request = make_request()
    if request_der is not None:
        request = Request(request_der, request.key)
    with pytest.raises(grpc.aio.AioRpcError, match=says) as refused:
        await world.join(None, made, request)
    assert refused.value.code() is code


async def test_a_request_that_names_somebody_is_refused(world: World) -> None:

    request = Request(Key.generate("p256").certificate_request([CART_ID], []), make_request().key)
    with pytest.raises(grpc.aio.AioRpcError, match="it requests"):
        await world.join(None, world.tokens.issue("node", 600, name="n1"), request)


def test_what_is_no_certificate_of_a_node(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    certificates, serving = NodeCertificates(store), ServingCertificate(store, ["127.0.0.1"])
    for pem in (b"nonsense", serving.chain_pem.encode()):
        with pytest.raises(InvalidToken, match="not a node's certificate"):
            certificates.check(pem)
    again = NodeCertificates(store)
    request = make_request()
    issued = certificates.issue(request.der, NodeClaims("n1", "j"))
    pem = x509.load_der_x509_certificate(issued.der).public_bytes(Encoding.PEM)
    assert again.check(pem).name == "n1", "the CA is kept over a restart"
    store.close()


JOIN = "/offload.v1.NodeService/Join"


async def test_few_are_read_at_once_of_those_who_show_nothing(world: World) -> None:
    """A request may be of 4 MiB. Whoever shows a token does not wait for them."""
    async with world.channel(None) as channel:
        call = channel.stream_unary(JOIN)
        silent = [call() for _ in range(STRANGERS_PER_ADDRESS)]
        await asyncio.gather(*(one.wait_for_connection() for one in silent))
        for _ in range(200):
            more = call()
            await more.done_writing()
            code = await asyncio.wait_for(more.code(), 20)
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                break
            await asyncio.sleep(0.05)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await world.join(None, world.tokens.issue("node", 600, name="n1"))
        for one in silent:
            one.cancel()
        for _ in range(200):
            last = call()
            await last.done_writing()
            code = await asyncio.wait_for(last.code(), 20)
            if code is grpc.StatusCode.INVALID_ARGUMENT:
                break
            await asyncio.sleep(0.05)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, "it ended without a request, and is not waited for"


async def test_a_request_that_cannot_be_read_is_refused(world: World) -> None:
    metadata = [("authorization", f"Bearer {world.tokens.issue('node', 600, name='n1')}")]
    async with world.channel(None) as channel:
        for shown in (metadata, []):
            with pytest.raises(grpc.aio.AioRpcError, match="this is not a JoinRequest") as refused:
                await channel.unary_unary(JOIN)(b"\xff\xff", metadata=shown, timeout=20)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
