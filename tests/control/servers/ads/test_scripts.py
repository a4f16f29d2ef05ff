"""Stream scripts against the real server, over state of the world and over delta: who says what, and what comes back.

The same scripts at the machine alone, with more of their corners, are in test_stream_sotw.py and test_stream_delta.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from control.xds.encoding.encode import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET
from tests.control.servers.ads.world import BACKEND_2, IDENTITY, NAME, Client, World, names_of

OTHER = """
type: MeshService
name: other
spec:
  selector: {dataplaneLabels: {matchLabels: {app: backend}}}
  ports: [{port: 80, targetPort: 8080, appProtocol: http}]
---
type: Dataplane
name: web-1
labels: {app: web, kuma.io/workload: web}
spec:
  networking:
    address: 10.0.0.1
    inbound: [{port: 8080, servicePort: 18080, protocol: http}]
    outbound:
      - {port: 3000, backendRef: {kind: MeshService, name: backend, port: 80}}
      - {port: 3001, backendRef: {kind: MeshService, name: other, port: 80}}
"""
ONLY_OTHER = OTHER.replace("      - {port: 3000, backendRef: {kind: MeshService, name: backend, port: 80}}\n", "")
BOTH = [NAME, "kri_msvc_default___other_80"]
INBOUND = "self_inbound_8080"
KINDS = {CLUSTER: "cluster", ENDPOINTS: "endpoints", LISTENER: "listener", ROUTES: "routes", SECRET: "secret"}


@pytest.fixture(params=[False, True], ids=["state of the world", "delta"])
def delta(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def connect(world: World, delta: bool) -> Callable[[], Client]:
    return lambda: world.stream(delta=delta)


def says(answer: Any, client: Client) -> tuple[str, list[str], list[str]]:
    """(type, names, names of what is removed)."""
    if client.delta:
        named = [resource.name for resource in answer.resources]
        return KINDS[answer.type_url], named, list(answer.removed_resources)
    return KINDS[answer.type_url], names_of(answer), []


async def told(client: Client) -> tuple[Any, tuple[str, list[str], list[str]]]:
    answer = await client.read()
    return answer, says(answer, client)


async def joined(client: Client) -> dict[str, Any]:
    """Has everything and has acknowledged it; the last answers by type."""
    last = {CLUSTER: await client.get(CLUSTER), ENDPOINTS: await client.get(ENDPOINTS, NAME)}
    last[LISTENER] = await client.get(LISTENER)
    last[ROUTES] = await client.get(ROUTES, NAME)
    return last


async def test_initial(connect: Callable[[], Client]) -> None:
    client = connect()
    await client.ask(CLUSTER)
    await client.ask(LISTENER)
    clusters, said = await told(client)
    assert said == ("cluster", [NAME, INBOUND], [])
    await client.ack(clusters)
    await client.ask(ENDPOINTS, NAME)
    endpoints, said = await told(client)  # and not the listeners, which wait for the endpoints
    assert said == ("endpoints", [NAME], [])
    await client.ack(endpoints, NAME)
    listeners, said = await told(client)
    assert said == ("listener", [INBOUND, "self_outbound_127.0.0.1_3000"], [])
    await client.ack(listeners)
    await client.ask(ROUTES, NAME)
    assert (await told(client))[1] == ("routes", [NAME], [])
    client.call.cancel()


async def test_an_ack_is_answered_by_nothing_and_a_change_by_what_changed(
    world: World, connect: Callable[[], Client]
) -> None:
    client = connect()
    last = await joined(client)
    assert await client.is_quiet()
    await world.apply(BACKEND_2)
    changed, said = await told(client)
    assert said == ("endpoints", [NAME], [])
    assert changed.nonce != last[ENDPOINTS].nonce
    client.call.cancel()


async def test_a_nack_is_answered_by_nothing_until_the_content_changes(
    world: World, connect: Callable[[], Client]
) -> None:
    client = connect()
    await joined(client)
    await world.apply(BACKEND_2)
    changed, _ = await told(client)
    await client.ack(changed, NAME, error="these are bad")
    assert await client.is_quiet()
    [proxy] = world.control_plane.state.proxies.named("default", "web-1")
    assert proxy.stream is not None
    refusals = proxy.stream.subscriptions[ENDPOINTS].refusals
    assert {name: refused.detail for name, refused in refusals.items()} == {NAME: "these are bad"}
    await world.apply(BACKEND_2.replace("10.0.0.3", "10.0.0.4"))
    again, said = await told(client)
    assert said == ("endpoints", [NAME], [])
    await client.ack(again, NAME)
    assert await client.is_quiet()
    assert proxy.stream.subscriptions[ENDPOINTS].refusals == {}
    client.call.cancel()


async def test_a_stale_nonce_acknowledges_nothing(world: World, connect: Callable[[], Client]) -> None:
    client = connect()
    last = await joined(client)
    await world.apply(BACKEND_2)
    changed, _ = await told(client)
    await client.ack(last[ENDPOINTS], NAME)  # of the answer before
    await world.apply(BACKEND_2.replace("10.0.0.3", "10.0.0.4"))
    assert await client.is_quiet()  # the newest waits for the acknowledgement of the one before it
    await client.ack(changed, NAME)
    assert (await told(client))[1] == ("endpoints", [NAME], [])
    client.call.cancel()


async def test_resubscribing(world: World, connect: Callable[[], Client]) -> None:
    await world.apply(OTHER)
    client = connect()
    await client.get(CLUSTER)
    await client.get(ENDPOINTS, *BOTH)
    await client.get(LISTENER)
    answer = await client.get(ROUTES, NAME)
    # One name more, then none of them, then the first again.
    if client.delta:
        await client.ask(ROUTES, BOTH[1])
        more, said = await told(client)
        assert said == ("routes", [BOTH[1]], [])
        await client.ack(more)
        await client.ask(ROUTES, resource_names_unsubscribe=BOTH)
        assert await client.is_quiet()
        await client.ask(ROUTES, NAME)
    else:
        await client.ack(answer, *BOTH)
        more, said = await told(client)
        assert said == ("routes", BOTH, [])
        await client.ack(more)
        assert await client.is_quiet()
        await client.ask(ROUTES, NAME, version_info=more.version_info, response_nonce=more.nonce)
    assert (await told(client))[1] == ("routes", [NAME], [])
    client.call.cancel()


async def test_reconnecting_with_versions(world: World, connect: Callable[[], Client]) -> None:
    client = connect()
    last = await joined(client)
    client.call.cancel()
    await world.apply(BACKEND_2)
    again = connect()

    def had(type_url: str) -> dict[str, Any]:
        if again.delta:
            return {"initial_resource_versions": {r.name: r.version for r in last[type_url].resources}}
        return {"version_info": last[type_url].version_info}

    await again.ask(CLUSTER, *(["*"] if again.delta else []), **had(CLUSTER))
    await again.ask(ENDPOINTS, NAME, **had(ENDPOINTS))
    answer, said = await told(again)
    assert said == ("endpoints", [NAME], [])  # and no clusters, which it has
    await again.ack(answer, NAME)
    await again.ask(LISTENER, *(["*"] if again.delta else []), **had(LISTENER))
    await again.ask(ROUTES, NAME, **had(ROUTES))
    assert await again.is_quiet()
    again.call.cancel()


async def test_wildcard_and_named(world: World, connect: Callable[[], Client]) -> None:
    named = connect()
    await named.ask(CLUSTER, INBOUND)
    answer, said = await told(named)
    assert said == ("cluster", [INBOUND], [])
    await named.ack(answer, INBOUND)
    both = connect()
    await both.ask(CLUSTER, "*", INBOUND)
    answer, said = await told(both)
    assert said == ("cluster", [NAME, INBOUND], [])
    await both.ack(answer, "*", INBOUND)
    await world.apply(OTHER)
    _, said = await told(both)
    assert (said[0], BOTH[1] in said[1]) == ("cluster", True)
    assert await named.is_quiet()  # the other cluster is nothing to it
    for client in (named, both):
        client.call.cancel()


async def test_on_demand(world: World, connect: Callable[[], Client]) -> None:
    """Names that do not exist yet: routes come when they are there; a cluster that is not there has no endpoints."""
    client = connect()
    await client.ask(ENDPOINTS, BOTH[1])
    answer, said = await told(client)
    assert said == ("endpoints", [BOTH[1]], [])
    await client.ack(answer, BOTH[1])
    await client.ask(ROUTES, BOTH[1])
    if client.delta:
        answer, said = await told(client)
        assert said == ("routes", [], [BOTH[1]])
        await client.ack(answer)
    assert await client.is_quiet()
    await world.apply(OTHER)
    found = {}
    for _ in range(2):
        answer, said = await told(client)
        found[said[0]] = said[1]
        await client.ack(answer, BOTH[1])
    assert found == {"endpoints": [BOTH[1]], "routes": [BOTH[1]]}
    client.call.cancel()


async def test_removal(world: World, connect: Callable[[], Client]) -> None:
    """The listener goes first, then the cluster it led to; delta names them, state of the world leaves them out."""
    await world.apply(OTHER)
    client = connect()
    await client.get(CLUSTER)
    await client.get(ENDPOINTS, *BOTH)
    await client.get(LISTENER)
    await client.get(ROUTES, *BOTH)
    await world.apply(ONLY_OTHER)
    listeners, said = await told(client)
    listener, other = "self_outbound_127.0.0.1_3000", "self_outbound_127.0.0.1_3001"
    assert said == (("listener", [], [listener]) if client.delta else ("listener", [INBOUND, other], []))
    await client.ack(listeners)
    if client.delta:
        routes, said = await told(client)
        assert said == ("routes", [], [NAME])
        await client.ack(routes)
    clusters, said = await told(client)
    assert said == (("cluster", [], [NAME]) if client.delta else ("cluster", [BOTH[1], INBOUND], []))
    await client.ack(clusters)
    _, said = await told(client)  # asked for still, and no cluster any more
    assert (said[0], NAME in said[1]) == ("endpoints", True)
    client.call.cancel()


async def test_secrets(world: World, connect: Callable[[], Client]) -> None:
    await world.apply(IDENTITY)
    client = connect()
    answer = await client.get(SECRET, "identity", "trust")
    assert says(answer, client) == ("secret", ["identity", "trust"], [])
    client.call.cancel()
