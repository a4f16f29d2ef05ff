"""The gRPC server: who is let in, what a hand-driven client gets, faults."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from control.kinds import KINDS
from control.reconcile.control_plane import ControlPlane
from control.rest.explain_proxy import overview
from control.servers.ads import delta_bytes, response_bytes
from control.store.database import StoreKey
from control.store.store import Store
from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, SECRET, intern
from control.xds.protocol.messages import Respond
from tests.control.servers.ads.world import BACKEND_2, IDENTITY, MESH, NAME, Client, World, addresses, names_of


async def test_a_proxy_gets_its_configuration_and_its_changes(world: World) -> None:
    client = world.stream()
    clusters = await client.get(CLUSTER)
    assert names_of(clusters) == [NAME, "self_inbound_8080"]
    endpoints = await client.get(ENDPOINTS, NAME)
    assert addresses(endpoints.resources[0]) == ["10.0.0.2"]
    listeners = await client.get(LISTENER)
    assert names_of(listeners) == ["self_inbound_8080", "self_outbound_127.0.0.1_3000"]
    await world.apply(BACKEND_2)
    changed = await client.read()
    assert changed.type_url == ENDPOINTS
    assert addresses(changed.resources[0]) == ["10.0.0.2", "10.0.0.3"]
    assert changed.version_info != endpoints.version_info
    client.call.cancel()


async def test_delta(world: World) -> None:
    client = world.stream(delta=True)
    clusters = await client.get(CLUSTER)
    assert [resource.name for resource in clusters.resources] == [NAME, "self_inbound_8080"]
    endpoints = await client.get(ENDPOINTS, NAME)
    assert addresses(endpoints.resources[0].resource) == ["10.0.0.2"]
    await world.apply(BACKEND_2)
    changed = await client.read()
    assert addresses(changed.resources[0].resource) == ["10.0.0.2", "10.0.0.3"]
    await client.ack(changed)
    client.call.cancel()
    again = world.stream(delta=True)
    have = {resource.name: resource.version for resource in clusters.resources} | {"old": "1"}
    await again.ask(CLUSTER, "*", initial_resource_versions=have)
    answer = await again.read()
    assert (list(answer.removed_resources), len(answer.resources)) == (["old"], 0)
    again.call.cancel()


async def test_secrets_of_a_proxy_on_envoys_own_tls(world: World) -> None:
    await world.apply(IDENTITY)
    client = world.stream()
    answer = await client.get(SECRET, "identity", "trust")
    assert names_of(answer) == ["identity", "trust"]
    client.call.cancel()
    again = world.stream()
    await again.ask(SECRET, "identity", "trust", version_info=answer.version_info)
    await again.ask(CLUSTER)
    assert (await again.read()).type_url == CLUSTER  # and nothing for the secrets, which it has
    again.call.cancel()


async def test_the_overview_shows_only_certificates_in_use(world: World) -> None:
    async def certificate() -> object:
        view = await world.control_plane.views.view("default", fresh=True)
        dataplane = view.get("Dataplane", "web-1")
        assert dataplane is not None
        return (await overview(world.control_plane, view, dataplane))["certificate"]

    await world.apply(IDENTITY)
    client = world.stream()
    await client.get(SECRET, "identity", "trust")
    assert await certificate() is not None
    await world.apply("type: MeshOffload\nname: all\nmesh: default\nspec: {default: {mode: Offload}}")
    assert await certificate() is None, "the node's daemon has its own"
    client.call.cancel()


async def test_a_refused_answer_is_counted_and_parked(world: World) -> None:
    client = world.stream()
    await client.ask(CLUSTER)
    answer = await client.read()
    await client.ack(answer, error="no such thing")
    await client.ask(LISTENER)
    assert (await client.read()).type_url == LISTENER  # CDS is parked, so it is not sent again
    [proxy] = world.control_plane.state.proxies.named("default", "web-1")
    assert proxy.stream is not None
    assert {r.detail for r in proxy.stream.subscriptions[CLUSTER].refusals.values()} == {"no such thing"}
    assert world.control_plane.state.metrics.nacks.labels("Cluster")._value.get() == 1
    client.call.cancel()


async def test_a_slow_proxy_does_not_hold_up_the_others(world: World) -> None:
    slow, quick = world.stream(), world.stream(node="default.web-1")
    for client in (slow, quick):
        await client.ask(ENDPOINTS, NAME)
    answer = await quick.read()
    for number in range(4, 8):
        await quick.ack(answer, NAME)
        await world.apply(BACKEND_2.replace("backend-2", f"backend-{number}").replace("10.0.0.3", f"10.0.0.{number}"))
        answer = await quick.read()
    assert len(addresses(answer.resources[0])) == 5
    first = await slow.read()
    assert len(addresses(first.resources[0])) == 1
    await slow.ack(first, NAME)
    assert len(addresses((await slow.read()).resources[0])) == 5  # what is in between is never sent
    slow.call.cancel()
    quick.call.cancel()


async def test_a_deleted_dataplane_ends_its_stream(world: World) -> None:
    client = world.stream()
    await client.get(CLUSTER)
    await world.control_plane.changes.delete("Dataplane", "default", "web-1")
    assert await client.end() == (grpc.StatusCode.NOT_FOUND, "the Dataplane 'web-1' was deleted")


async def test_a_dataplane_that_becomes_another_than_the_token_says_ends_its_stream(world: World) -> None:
    client, other = world.stream(token=world.token(labels={"app": "web"})), world.stream()
    for one in (client, other):
        await one.get(CLUSTER)
    changed = MESH.partition("---")[2].partition("---")[0].replace("app: web", "app: db")
    assert "app: db" in changed
    await world.apply(changed)
    code, details = await client.end()
    assert (code, "has db" in details) == (grpc.StatusCode.PERMISSION_DENIED, True)
    await other.get(LISTENER)  # its token is for any dataplane of the mesh
    other.call.cancel()


async def refusal(client: Client) -> tuple[grpc.StatusCode, str]:
    with contextlib.suppress(asyncio.InvalidStateError, grpc.RpcError):  # it may have been refused already
        await client.ask(CLUSTER)
    return await client.end()


async def test_who_is_let_in(world: World) -> None:
    await world.apply("type: Mesh\nname: other")
    cases = [
        (world.stream(token=""), "UNAUTHENTICATED", "no dataplane token"),
        (world.stream(token="nonsense"), "UNAUTHENTICATED", "this is not a token"),
        (world.stream(token=world.token(mesh="other")), "UNAUTHENTICATED", "the token"),
        (world.stream(token=world.token(name="web-2")), "PERMISSION_DENIED", "is for the dataplane 'web-2'"),
        (world.stream(token=world.token(labels={"app": "x"})), "PERMISSION_DENIED", "has web"),
        (world.stream(node="default.web-9"), "NOT_FOUND", "apply it first"),
        (world.stream(node="web-1"), "INVALID_ARGUMENT", "node.id must be <mesh>.<dataplane>"),
        (world.stream(token=world.tokens.issue("node", 60)), "UNAUTHENTICATED", "the token"),
    ]
    for client, code, says in cases:
        found, details = await refusal(client)
        assert (found.name, says in details) == (code, True), details
    revoked = world.token()
    world.tokens.revoke(revoked)
    assert await refusal(world.stream(token=revoked)) == (grpc.StatusCode.UNAUTHENTICATED, "the token was revoked")
    expired = world.stream(token=world.tokens.issue("dataplane", -1, "default"))
    assert await refusal(expired) == (grpc.StatusCode.UNAUTHENTICATED, "the token has expired: generate a new one")
    good = world.stream(token=world.token(name="web-1", labels={"app": "web"}))
    await good.get(CLUSTER)
    good.call.cancel()


async def test_too_many_names_end_the_stream(world: World) -> None:
    client = world.stream()
    await client.ask(ENDPOINTS, *(str(number) for number in range(10_001)))
    code, details = await client.end()
    assert (code, "at most 10000" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_after_a_restart_proxies_see_no_change(world: World, tmp_path: Path) -> None:
    await world.apply(IDENTITY)
    client = world.stream()
    before = [
        await client.get(CLUSTER),
        await client.get(ENDPOINTS, NAME),
        await client.get(SECRET, "identity", "trust"),
    ]
    client.call.cancel()
    store = Store(f"sqlite:///{tmp_path}/mesh.db", StoreKey(file=tmp_path / "key"), KINDS)
    control_plane = ControlPlane(store)
    snapshot = control_plane.snapshots.build(await control_plane.views.view("default"), "web-1")
    assert snapshot is not None
    assert [answer.version_info for answer in before] == [snapshot.version(a.type_url) for a in before]
    store.close()


def test_answers_are_what_protobuf_would_have_made() -> None:
    resources = tuple(
        intern(name, b"\x0a\x01t\x12" + bytes([len(body)]) + body) for name, body in (("a", b"x"), ("b", b""))
    )
    answer = Respond("t", "v", "n", resources, ("gone",))
    whole = discovery_pb2.DiscoveryResponse.FromString(response_bytes(answer))
    assert (whole.version_info, whole.type_url, whole.nonce) == ("v", "t", "n")
    assert [(r.type_url, r.value) for r in whole.resources] == [("t", b"x"), ("t", b"")]
    delta = discovery_pb2.DeltaDiscoveryResponse.FromString(delta_bytes(answer))
    assert (delta.system_version_info, delta.nonce, list(delta.removed_resources)) == ("v", "n", ["gone"])
    assert [(r.name, r.version, r.resource.value) for r in delta.resources] == [
        ("a", resources[0].version, b"x"),
        ("b", resources[1].version, b""),
    ]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 70_000])
def test_lengths_of_resources(size: int) -> None:
    from google.protobuf import any_pb2

    body = any_pb2.Any(type_url="t", value=b"x" * size).SerializeToString()
    answer = Respond("t", "v", "n", (intern(f"r{size}", body),))
    assert len(discovery_pb2.DiscoveryResponse.FromString(response_bytes(answer)).resources[0].value) == size


async def test_who_shows_no_token_is_refused_before_anything_is_read(world: World) -> None:
    """Not a message has been sent, and none could be: it may have 4 MiB."""
    for token, says in (("", "no dataplane token"), ("x", "this is not a token"), (world.token(name="web-1")[:-4], "")):
        code, details = await world.stream(token=token).end()
        assert (code, says in details) == (grpc.StatusCode.UNAUTHENTICATED, True), details
