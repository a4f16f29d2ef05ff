"""Changes of identities, TLS modes and proxies under load, on real Envoys: no request fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control.mesh.facts import Presence, ServicePlan
from control.mesh.transitions import TLS
from control.mesh.view import MeshView
from control.rest import explain_proxy
from control.xds.snapshot import Snapshot
from deploy.node.waiting import eventually
from tests.control.fleet import Fleet, Load, fleet
from tests.control.scene import Read

pytestmark = pytest.mark.envoy

PERMISSION = """
type: MeshTrafficPermission
name: all
spec: {rules: [{default: {allow: [{spiffeID: {type: Prefix, value: "spiffe://default.default.mesh.local"}}]}}]}
"""
ANOTHER_DOMAIN = PERMISSION.replace("name: all", "name: other").replace("default.default.mesh.local", "other.test")
PERMISSIVE = "type: MeshTLS\nname: mode\nspec: {rules: [{default: {mode: Permissive}}]}\n"
STRICT = PERMISSIVE.replace("Permissive", "Strict")


def identity(spiffe: str = "") -> str:
    return f"""
type: MeshIdentity
name: identity
spec:
  selector: {{dataplane: {{matchLabels: {{}}}}}}
  {spiffe}
  provider: {{type: Bundled, bundled: {{autogenerate: {{enabled: true}}}}}}
"""


def backend(there: Fleet, name: str, labels: str = "kuma.io/workload: backend") -> str:
    return f"""
type: Dataplane
name: {name}
labels: {{app: backend, {labels}}}
spec:
  networking:
    address: 127.0.0.1
    inbound: [{{port: {there.port(name)}, servicePort: {there.port(f"{name}-app")}, name: http, protocol: http}}]
"""


def mesh(there: Fleet, backends: tuple[str, ...]) -> str:
    web = f"""
type: Dataplane
name: web
labels: {{app: web, kuma.io/workload: web}}
spec:
  networking:
    address: 127.0.0.1
    outbound: [{{port: {there.port("call")}, backendRef: {{kind: MeshService, name: backend, port: 80}}}}]
"""
    service = """
type: MeshService
name: backend
spec:
  selector: {dataplaneLabels: {matchLabels: {app: backend}}}
  ports: [{port: 80, targetPort: http, appProtocol: http}]
"""
    parts = ["type: Mesh\nname: default\n", web, service, *(backend(there, name) for name in backends), PERMISSION]
    return "---\n".join(parts)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.reconcile.poll.POLL_S", 0.3)


@pytest.fixture
async def there(tmp_path: Path, read_resources: Read, envoy_binary: Path) -> AsyncIterator[Fleet]:
    """web calls two backends by plaintext; everybody is there."""
    async with fleet(tmp_path, read_resources, envoy_binary) as made:
        await made.running.apply(mesh(made, ("one", "two")))
        for name in ("one", "two"):
            await made.application(name)
            made.start(name)
        made.start("web")
        yield made


async def view_of(there: Fleet) -> MeshView:
    return await there.running.control_plane.views.view("default")


async def service(there: Fleet) -> ServicePlan:
    plan = (await view_of(there)).plan
    assert plan is not None
    return plan.services["backend"]


async def until_settled(there: Fleet) -> MeshView:
    """Nothing waits, every proxy uses just what it was given last, and so for a second."""
    control_plane, stable, before = there.running.control_plane, 0, None
    for _ in range(400):
        view = await view_of(there)
        assert view.plan is not None
        connected = [proxy for name in there.envoys for proxy in control_plane.state.proxies.named("default", name)]
        is_settled = (
            not view.plan.waits
            and {proxy.name for proxy in connected} >= set(there.envoys)
            and all(proxy.claims.possible == [view.plan.facts[proxy.name]] for proxy in connected)
        )
        stable = stable + 1 if is_settled and view is before else 0
        if stable == 10:
            return view
        before = view
        await asyncio.sleep(0.1)
    raise AssertionError(view.plan.waits if view.plan else "")


async def waits_named(there: Fleet) -> set[tuple[str, str]]:
    return {(wait["who"], wait["waitsFor"]) for wait in explain_proxy.waiting(await view_of(there))}


async def test_identities_come_change_and_go(there: Fleet) -> None:
    async with Load(there.port("call")) as load:
        await load.more(50)
        await until_settled(there)
        assert not (await service(there)).tls
        # They come, and nothing but mutual TLS is taken any more.
        await there.running.apply(identity())
        view = await until_settled(there)
        assert (await service(there)).tls
        assert view.plan is not None
        assert not view.plan.facts["one"].inbounds["http"].plaintext
        await load.more(100)
        # Other paths, and another trust domain.
        await there.running.apply(identity('spiffeID: {path: "/sa/{{ label \\"app\\" }}"}'))
        view = await until_settled(there)
        assert (await service(there)).server_ids == ("spiffe://default.default.mesh.local/sa/backend",)
        await load.more(100)
        await there.running.apply(ANOTHER_DOMAIN)
        await there.running.apply(identity("spiffeID: {trustDomain: other.test}"))
        await until_settled(there)
        assert (await service(there)).server_ids == ("spiffe://other.test/workload/backend",)
        await load.more(100)
        # Modes.
        for mode in (PERMISSIVE, STRICT):
            await there.running.apply(mode)
            await until_settled(there)
            await load.more(50)
        # And they go.
        await there.running.control_plane.changes.delete("MeshIdentity", "default", "identity")
        view = await until_settled(there)
        assert not (await service(there)).tls
        assert view.plan is not None
        assert view.plan.facts["one"].identity is None
        await load.more(100)
    assert load.failed == {}
    assert there.running.control_plane.state.metrics.nacks._metrics == {}


async def test_clients_wait_for_the_last_server_which_is_named(there: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what one of two backends is given reaches it for a while."""
    control_plane = there.running.control_plane
    async with Load(there.port("call")) as load:
        await load.more(50)
        await until_settled(there)
        [late] = control_plane.state.proxies.named("default", "two")

        def withheld(snapshot: Snapshot | None, _: object) -> None:
            assert snapshot is not None
            assert snapshot.facts is not None
            late.claims.offer(snapshot.facts)

        monkeypatch.setattr(late, "offer", withheld)
        await there.running.apply(identity())
        await eventually_waits(there, ("service backend", "two"))
        await load.more(200)
        view = await view_of(there)
        assert not (await service(there)).tls
        two = view.get("Dataplane", "two")
        assert two is not None
        overview = await explain_proxy.overview(control_plane, view, two)
        assert ("service backend", "two") in {(wait["who"], wait["waitsFor"]) for wait in overview["waits"]}
        assert control_plane.state.metrics.registry.get_sample_value(
            "mesh_waiting_steps", {"mesh": "default", "step": TLS}
        )
        monkeypatch.undo()
        await there.running.apply(STRICT)
        await until_settled(there)
        assert (await service(there)).tls
        await load.more(100)
    assert load.failed == {}


async def eventually_waits(there: Fleet, wanted: tuple[str, str]) -> None:
    for _ in range(200):
        if wanted in await waits_named(there):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(await waits_named(there))


async def test_a_member_without_its_label_gets_no_traffic(there: Fleet) -> None:
    await there.running.apply(identity())
    async with Load(there.port("call")) as load:
        await load.more(50)
        await until_settled(there)
        assert (await service(there)).tls
        await there.application("three")
        await there.running.apply(backend(there, "three", labels="version: three"))
        there.start("three")
        await eventually("three to come", lambda: there.running.control_plane.state.proxies.named("default", "three"))
        await eventually_waits(there, ("three", "three"))
        await load.more(100)
        # One that had it loses it.
        await there.running.apply(backend(there, "two", labels="version: two"))
        await eventually_waits(there, ("two", "two"))
        await load.more(100)
        load.texts.clear()
        await load.more(100)
        assert set(load.texts) == {"one"}
        # And gets it back.
        await there.running.apply(backend(there, "two"))
        await there.running.apply(backend(there, "three"))
        await until_settled(there)
        load.texts.clear()
        await load.more(200)
        assert set(load.texts) == {"one", "two", "three"}
    assert load.failed == {}


async def eventually_without_failures(load: Load, requests: int) -> None:
    for _ in range(100):
        load.seen.clear()
        await load.more(requests)
        if not load.failed:
            return
    raise AssertionError(load.failed)


async def test_an_offline_proxy_leaves_the_endpoints(there: Fleet) -> None:
    await there.running.stop()
    there.running.offline_after = 2.0
    await there.running.start()
    async with Load(there.port("call")) as load:
        await load.more(50)
        there.kill("two")
        transitions = there.running.control_plane.state.plans
        await eventually("two is offline", lambda: transitions.presence_of("default", "two") is Presence.OFFLINE)
        # Until web has been told, and its Envoy has done it, every second call meets nobody.
        await eventually_without_failures(load, 100)
        load.seen.clear()
        await load.more(200)
        assert load.failed == {}
        # When it is back, it is called again.
        there.start("two")
        load.texts.clear()
        await eventually("two is called again", lambda: load.texts["two"] > 0)
    assert load.failed == {}
