"""Nodes: what a daemon gets, whose certificates it may ask for, and that a rotation waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from control.ca.issue import svid_problems
from control.ca.rotation import Event, Stage, WrongStage
from control.mesh.node_configuration import configuration
from control.mesh.transitions import OFFLOAD as MOVE
from control.mesh.view import MeshView, view_of
from control.reconcile.control_plane import ControlPlane
from control.reconcile.proxies import Proxy
from control.rest import explain_proxy
from control.tokens.tokens import Tokens
from control.xds.encoding.encode import SECRET
from envoy_ext.settings import DEFAULT_DAEMON_SOCKET
from offload.v1 import node_pb2
from tests.control.scene import Read
from tests.control.servers.nodes.world import CART, CART_ID, DATAPLANES, MESH, WEB_ID, Node, World, dataplane, request

# --- what a node should have ------------------------------------------------------------------------------------------


def view_read(read: Read, text: str) -> MeshView:
    return view_of("default", read(MESH + text))


def test_dataplanes_with_one_id_share_one_key(read_resources: Read) -> None:
    found = configuration([view_read(read_resources, DATAPLANES)], "n1", {("default", "identity"): "ab"})
    [identity] = found.identities
    assert (identity.identity.spiffe_id, identity.dataplanes, identity.issuer) == (CART_ID, ("cart-1", "cart-2"), "ab")
    assert [(caller.uid, caller.gid) for caller in identity.callers] == [(101, None), (102, 7)]
    assert (identity.settings.key_type, identity.settings.software, found.problems) == ("rsa2048", "Require", ())
    assert configuration([view_read(read_resources, DATAPLANES)], "n3").identities == ()


def test_the_version_is_that_of_the_content(read_resources: Read) -> None:
    one, same = (configuration([view_read(read_resources, DATAPLANES)], "n1") for _ in range(2))
    more = view_read(read_resources, DATAPLANES + dataplane("cart-3", CART + ', offload.mesh/uid: "9"'))
    assert one.version == same.version != configuration([more], "n1").version
    assert (
        one.version
        != configuration([view_read(read_resources, DATAPLANES)], "n1", {("default", "identity"): "b"}).version
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (dataplane("a", "offload.mesh/node: n1"), "default/a is in mode Offload, but no MeshIdentity"),
        (dataplane("a", CART), "default/a has no label offload.mesh/uid: nobody may use its key"),
        (dataplane("a", CART + ", offload.mesh/uid: root"), "must be a number; got 'root'"),
        (dataplane("a", CART + ', offload.mesh/uid: "4294967295"'), "must be a number"),
        (
            dataplane("a", CART + ', offload.mesh/uid: "1"')
            + dataplane("b", CART + ', offload.mesh/uid: "1", x: y')
            + "---\ntype: MeshOffload\nname: b\nspec:\n  targetRef: {kind: Dataplane, labels: {x: y}}\n"
            + "  default: {keyType: p256}\n",
            "different MeshOffload settings; those of a apply",
        ),
    ],
)
def test_what_cannot_be_is_said(read_resources: Read, text: str, says: str) -> None:
    found = configuration([view_read(read_resources, text)], "n1")
    assert any(says in problem for problem in found.problems), found.problems


def test_dataplanes_on_envoys_own_tls_are_not_the_nodes(read_resources: Read) -> None:
    off = "---\ntype: MeshOffload\nname: all\nspec: {default: {mode: EnvoyTLS}}\n"
    view = view_of("default", [r for r in read_resources(MESH + DATAPLANES) if r.kind.type != "MeshOffload"])
    assert configuration([view], "n1").identities == ()
    assert configuration([view_read(read_resources, DATAPLANES + off)], "n1").identities == ()


# --- the service ------------------------------------------------------------------------------------------------------


async def test_a_node_gets_its_identities_and_certificates(world: World) -> None:
    node = await world.join("n1")
    configured = await node.read()
    [identity] = configured.identities
    assert (identity.spiffe_id, list(identity.dataplanes), identity.key_type) == (
        CART_ID,
        ["cart-1", "cart-2"],
        "rsa2048",
    )
    assert (identity.software, identity.socket, identity.max_queue) == (
        node_pb2.MeshIdentity.REQUIRE,
        "/run/x.sock",
        100,
    )
    assert [selector.uid for selector in identity.selectors] == [101, 102]
    assert not identity.selectors[0].HasField("gid")
    [trusted] = configured.trusted_domains
    authority = x509.load_der_x509_certificate(trusted.authorities[0])
    assert authority.fingerprint(hashes.SHA256()) == identity.issuer
    answer = await node.certificate(CART_ID, request(CART_ID), 7)
    assert (answer.id, answer.status) == (7, 0)
    leaf = x509.load_der_x509_certificate(answer.certificate_chain[0])
    leaf.verify_directly_issued_by(authority)
    assert list(svid_problems(leaf)) == []
    begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    assert begin + (end - begin) * 0.4 < answer.renew_at < begin + (end - begin) * 0.6
    node.call.cancel()


async def test_a_node_gets_nothing_of_another(world: World) -> None:
    node = await world.join("n1")
    await node.read()
    refused = await node.certificate(WEB_ID, request(WEB_ID))
    assert (refused.status, len(refused.certificate_chain)) == (grpc.StatusCode.PERMISSION_DENIED.value[0], 0)
    assert "no dataplane on node 'n1' has the identity" in refused.message
    wrong = await node.certificate(CART_ID, request(WEB_ID))
    assert (wrong.status, f"not {CART_ID}" in wrong.message) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], True)
    garbage = await node.certificate(CART_ID, b"x")
    assert garbage.status == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert (await node.certificate(CART_ID, request(CART_ID))).status == 0  # the stream goes on
    node.call.cancel()


async def test_changes_arrive_and_only_changes(world: World) -> None:
    node = await world.join("n1")
    first = await node.read()
    await world.control_plane.changes.put_all(
        world.read(dataplane("web-2", "kuma.io/workload: web, offload.mesh/node: n2"))
    )
    await world.control_plane.changes.put_all(world.read(dataplane("cart-3", CART + ', offload.mesh/uid: "104"')))
    second = await node.read()
    assert list(second.identities[0].dataplanes) == ["cart-1", "cart-2", "cart-3"]
    assert second.version != first.version
    node.call.cancel()


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (lambda _: None, "no node token"),
        (lambda _: "x", "this is not a token"),
        (lambda tokens: tokens.issue("node", 60), "names no node"),
        (lambda tokens: tokens.issue("dataplane", 60, "default", name="n1"), "the token"),
    ],
)
async def test_who_is_let_in(world: World, token: Callable[[Tokens], str | None], says: str) -> None:
    made = token(world.tokens)
    call = world.stub.Connect(metadata=[("authorization", f"Bearer {made}")] if made else [])
    with pytest.raises(grpc.aio.AioRpcError, match=says) as refused:
        await asyncio.wait_for(call.read(), 20)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_rotation_waits_for_the_nodes(world: World) -> None:
    identity = world.control_plane.state.store.get("MeshIdentity", "default", "identity")
    one, two = await world.join("n1"), await world.join("n2")
    for node in (one, two):
        await node.apply(await node.read())
    await world.control_plane.rotations.rotate(identity, Event.BEGIN)
    bundles = [await node.read() for node in (one, two)]
    assert all(len(bundle.trusted_domains[0].authorities) == 2 for bundle in bundles)
    await one.apply(bundles[0])
    await two.apply(bundles[1], "no room for another CA")
    await settle(world, "n1", bundles[0].version)
    with pytest.raises(WrongStage, match="some proxies have not reached this stage: web-1"):
        await world.control_plane.rotations.rotate(identity, Event.DISTRIBUTED)
    await two.apply(bundles[1])
    await settle(world, "n2", bundles[1].version)
    assert (await world.control_plane.rotations.rotate(identity, Event.DISTRIBUTED)).stage is Stage.ISSUING
    for node, spiffe_id in ((one, CART_ID), (two, WEB_ID)):
        issuing = await node.read()
        assert issuing.identities[0].issuer != bundles[0].identities[0].issuer
        await node.apply(issuing)
        await settle(world, "n1" if node is one else "n2", issuing.version)
        with pytest.raises(WrongStage, match="some proxies have not reached this stage"):
            await world.control_plane.rotations.rotate(identity, Event.REPLACED)
        assert (await node.certificate(spiffe_id, request(spiffe_id))).status == 0
    assert (await world.control_plane.rotations.rotate(identity, Event.REPLACED)).stage is Stage.RETIRING
    for node, name in ((one, "n1"), (two, "n2")):
        retired = await node.read()
        assert len(retired.trusted_domains[0].authorities) == 1
        await node.apply(retired)
        await settle(world, name, retired.version)
    assert (await world.control_plane.rotations.rotate(identity, Event.RETIRED)).stage is Stage.STABLE
    one.call.cancel()
    two.call.cancel()


ENVOY_TLS, OFFLOAD = (
    f"type: MeshOffload\nname: all\nspec: {{default: {{mode: {mode}}}}}" for mode in ("EnvoyTLS", "Offload")
)


async def until_it_has_secrets(proxy: Proxy, wanted: bool) -> None:
    """Secrets are those of Envoy's own TLS: in mode Offload there are none."""
    async with asyncio.timeout(20):
        while proxy.snapshot is None or bool(proxy.snapshot.of_type(SECRET)) is not wanted:
            proxy.wake.clear()
            await proxy.wake.wait()


async def until_so_many_wait(control_plane: ControlPlane, wanted: int) -> None:
    name, labels = "mesh_proxies_waiting_for_node", {"mesh": "default"}
    for _ in range(200):
        if control_plane.state.metrics.registry.get_sample_value(name, labels) == wanted:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{name} did not become {wanted}")


@pytest.mark.slow(seconds=3)
async def test_a_proxy_keeps_its_own_tls_until_its_node_serves_it(world: World) -> None:
    control_plane = world.control_plane
    await control_plane.changes.put_all(world.read(ENVOY_TLS))
    cart, web = (
        await control_plane.connections.connect("default", "cart-1"),
        await control_plane.connections.connect("default", "web-1"),
    )
    await until_it_has_secrets(cart, True)
    # Only `cart` has a node that is there, and only a node that has the key can be relied on.
    node = await world.join("n1")
    await node.read()
    await control_plane.changes.put_all(world.read(OFFLOAD))
    configured = await node.read()
    assert [identity.spiffe_id for identity in configured.identities] == [CART_ID]
    await node.apply(configured)
    await settle(world, "n1", configured.version)
    await until_so_many_wait(control_plane, 2)
    view = await control_plane.views.view("default")
    dataplanes = {name: view.get("Dataplane", name) for name in ("cart-1", "web-1")}
    assert view.plan is not None
    assert {w.who: w.waits_for for w in view.plan.waits if w.step == MOVE} == {"cart-1": "node n1", "web-1": "node n2"}
    assert dataplanes["cart-1"] is not None
    overview = await explain_proxy.overview(control_plane, view, dataplanes["cart-1"])
    assert (overview["mode"], overview["settled"]) == ("EnvoyTLS", False)
    [wait] = overview["waits"]
    assert (wait["who"], wait["waitsFor"]) == ("cart-1", "node n1")
    assert not await has_no_secrets_soon(cart)
    await until_so_many_wait(control_plane, 2)
    # A node speaks for its own identities only.
    await node.send(serving=node_pb2.Serving(spiffe_ids=[CART_ID, WEB_ID]))
    await until_it_has_secrets(cart, False)
    assert not await has_no_secrets_soon(web)
    await until_so_many_wait(control_plane, 1)
    control_plane.connections.disconnect(web)
    await until_so_many_wait(control_plane, 0)
    # There is no way back but by the policy: a node that goes away takes nobody to Envoy's own TLS.
    node.call.cancel()
    for _ in range(200):
        if not world.nodes.sessions("n1"):
            break
        await asyncio.sleep(0.05)
    assert world.nodes.word("n1", CART_ID, str(DEFAULT_DAEMON_SOCKET)) == "its daemon is not connected"
    again = await control_plane.connections.connect("default", "cart-1")
    assert again.snapshot is not None
    assert not again.snapshot.of_type(SECRET)
    await control_plane.changes.put_all(world.read(ENVOY_TLS))
    await until_it_has_secrets(cart, True)


async def has_no_secrets_soon(proxy: Proxy) -> bool:
    try:
        async with asyncio.timeout(1):
            await until_it_has_secrets(proxy, False)
    except TimeoutError:
        return False
    return True


async def settle(world: World, node: str, version: str) -> None:
    """Until the control plane has read the node's answer."""
    for _ in range(200):
        if [session.applied_version for session in world.nodes.sessions(node)] == [version]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{node} is not at {version}")


# --- what proxies still use -------------------------------------------------------------------------------------------


def acknowledge(control_plane: ControlPlane, proxy: Proxy) -> None:
    """All that it was offered, as its stream would find out."""
    assert proxy.snapshot is not None
    assert proxy.snapshot.facts is not None
    proxy.claims.settle(proxy.snapshot.facts)
    control_plane.connections.settled(proxy)


async def next_configuration(node: Node, wanted: Callable[[Any], bool]) -> Any:
    """Answers what comes on the way to it, and says that all is served."""
    while True:
        configured = await node.read()
        await node.apply(configured)
        ids = [identity.spiffe_id for identity in configured.identities]
        await node.send(serving=node_pb2.Serving(spiffe_ids=ids))
        if wanted(configured):
            return configured


async def test_a_node_keeps_an_identity_until_its_proxies_have_gone_over(world: World) -> None:
    control_plane = world.control_plane
    node = await world.join("n1")
    proxies = [await control_plane.connections.connect("default", name) for name in ("cart-1", "cart-2")]
    await next_configuration(node, lambda found: bool(found.identities))
    for proxy in proxies:
        acknowledge(control_plane, proxy)
    # To Envoy's own TLS: one of two has gone over, and the other one still signs with the daemon.
    await control_plane.changes.put_all(world.read(ENVOY_TLS))
    for proxy in proxies:
        await until_it_has_secrets(proxy, True)
    acknowledge(control_plane, proxies[0])
    [identity] = (await next_configuration(node, lambda found: len(found.identities[0].dataplanes) == 1)).identities
    assert list(identity.dataplanes) == ["cart-2"]
    acknowledge(control_plane, proxies[1])
    await next_configuration(node, lambda found: not found.identities)


async def until_it_uses(proxy: Proxy, socket: str) -> None:
    async with asyncio.timeout(20):
        while socket not in repr(proxy.snapshot.facts if proxy.snapshot else None):
            proxy.wake.clear()
            await proxy.wake.wait()


async def test_a_node_serves_the_former_socket_until_its_proxies_have_gone_over(world: World) -> None:
    control_plane = world.control_plane
    node = await world.join("n1")
    proxies = [await control_plane.connections.connect("default", name) for name in ("cart-1", "cart-2")]
    await next_configuration(node, lambda found: bool(found.identities))
    for proxy in proxies:
        acknowledge(control_plane, proxy)
    await control_plane.changes.put_all(world.read(MOVED))
    [identity] = (await next_configuration(node, lambda found: found.identities[0].socket == "/run/y.sock")).identities
    assert list(identity.former_sockets) == ["/run/x.sock"]
    # The daemon has said that it serves both; so they go over, and when the last has, the old one ends.
    for proxy in proxies:
        await until_it_uses(proxy, "/run/y.sock")
    for proxy in proxies:
        acknowledge(control_plane, proxy)
    await next_configuration(node, lambda found: not found.identities[0].former_sockets)


async def test_a_deleted_dataplane_leaves_its_node_a_moment_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control.servers.node_session.LEAVING_S", 1.0)
    node = await world.join("n2")
    await next_configuration(node, lambda found: bool(found.identities))
    await world.control_plane.changes.delete("Dataplane", "default", "web-1")
    [leaving] = (await next_configuration(node, lambda found: not found.identities[0].dataplanes)).identities
    # The key is still there, and nothing is signed for it any more.
    assert leaving.spiffe_id == WEB_ID
    refused = await node.certificate(WEB_ID, request(WEB_ID))
    assert "no dataplane on node 'n2' has the identity" in refused.message
    await next_configuration(node, lambda found: not found.identities)


MOVED = "type: MeshOffload\nname: all\nspec: {default: {keyType: rsa2048, software: Require, socket: /run/y.sock}}"


async def test_a_daemon_that_cannot_serve_is_shown_with_its_word(world: World) -> None:
    control_plane = world.control_plane
    node = await world.join("n1")
    proxy = await control_plane.connections.connect("default", "cart-1")
    configured = await node.read()
    word = f"{CART_ID}: software is forbidden, and this host has no vector kernels in use"
    await node.apply(configured, word)
    await node.send(serving=node_pb2.Serving())
    acknowledge(control_plane, proxy)

    async def overview() -> dict[str, Any]:
        view = await control_plane.views.view("default")
        dataplane = view.get("Dataplane", "cart-1")
        assert dataplane is not None
        return await explain_proxy.overview(control_plane, view, dataplane)

    async def until(holds: Callable[[dict[str, Any]], bool]) -> None:
        for _ in range(400):
            unserved = control_plane.state.metrics.registry.get_sample_value(
                "mesh_unserved_proxies", {"mesh": "default"}
            )
            if holds(found := await overview()) and unserved == (0 if found["settled"] else 1):
                return
            await asyncio.sleep(0.05)
        pytest.fail(str(await overview()))

    await until(lambda found: "software is forbidden" in str(found["problems"]) and not found["settled"])
    node.call.cancel()
    await until(lambda found: "its daemon is not connected" in str(found["problems"]) and not found["settled"])
    again = await world.join("n1")
    await next_configuration(again, lambda found: bool(found.identities))
    await until(lambda found: found["settled"])
