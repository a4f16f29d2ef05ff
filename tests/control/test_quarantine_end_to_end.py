"""A policy that Envoy refuses, beside everything else that goes on: permissions, restarts, other proxies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from control.kinds import KINDS
from control.model.resource import Resource
from control.rest.explain_proxy import overview
from deploy.node.waiting import eventually
from tests.control.fleet import Fleet, fleet
from tests.control.resources import MESH_WITH_IDENTITY
from tests.control.scene import Read, answer, until

pytestmark = pytest.mark.envoy

PERMISSION = """
type: MeshTrafficPermission
name: web-calls
spec:
  targetRef: {kind: Dataplane, labels: {app: backend}}
  rules: [{default: {allow: [{spiffeID: {type: Exact, value: spiffe://default.default.mesh.local/workload/web}}]}}]
"""
_LOG = [{"type": "File", "file": {"path": "/dev/stdout", "format": {"type": "Plain", "plain": "%NO_SUCH_OPERATOR%"}}}]
BAD_LOG = {"rules": [{"default": {"backends": _LOG}}]}
BAD_ROUTE = {
    "to": [
        {
            "targetRef": {"kind": "MeshService", "labels": {"kuma.io/display-name": "backend"}},
            "rules": [{"matches": [{"path": {"type": "RegularExpression", "value": "/(?>a)"}}], "default": {}}],
        }
    ]
}
_RING = {"type": "RingHash", "ringHash": {"minRingSize": 10, "maxRingSize": 5}}
BAD_BALANCING = {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"loadBalancer": _RING}}]}
BAD: dict[str, dict[str, Any]] = {
    "MeshAccessLog": BAD_LOG,
    "MeshHTTPRoute": BAD_ROUTE,
    "MeshLoadBalancingStrategy": BAD_BALANCING,
}


def mesh(there: Fleet, protocol: str) -> str:
    return f"""{MESH_WITH_IDENTITY}---
type: Dataplane
name: web
labels: {{app: web, kuma.io/workload: web}}
spec:
  networking:
    address: 127.0.0.1
    outbound: [{{port: {there.port("call")}, backendRef: {{kind: MeshService, name: backend, port: 80}}}}]
---
type: Dataplane
name: backend
labels: {{app: backend, kuma.io/workload: backend}}
spec:
  networking:
    address: 127.0.0.1
    inbound:
      - {{port: {there.port("backend")}, servicePort: {there.port("backend-app")}, name: in, protocol: {protocol}}}
---
type: MeshService
name: backend
spec:
  selector: {{dataplaneLabels: {{matchLabels: {{app: backend}}}}}}
  ports: [{{port: 80, targetPort: in, appProtocol: {protocol}}}]
---{PERMISSION}"""


async def put(there: Fleet, type_name: str, spec: dict[str, Any], name: str = "bad") -> None:
    """Past the validation, which knows better than to let Envoy refuse it."""
    kind = KINDS.of_type(type_name)
    assert kind is not None
    await there.running.control_plane.changes.put(Resource(kind, "default", name, kind.spec.model_validate(spec)))


async def delete(there: Fleet, type_name: str, name: str = "bad") -> None:
    await there.running.control_plane.changes.delete(type_name, "default", name)


async def shown(there: Fleet, name: str) -> dict[str, Any]:
    view = await there.running.control_plane.views.view("default")
    dataplane = view.get("Dataplane", name)
    assert dataplane is not None
    return await overview(there.running.control_plane, view, dataplane)


async def left_out(there: Fleet, name: str, *policies: str) -> dict[str, Any]:
    def holds() -> bool:
        return [one.type for one in there.running.control_plane.state.quarantines.left_out("default", name)] == [
            *policies
        ]

    await eventually(f"{name} without {policies}", holds)
    return await shown(there, name)


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "state of the world"])
@pytest.mark.parametrize("protocol", ["tcp", "http"])
async def test_a_permission_does_not_wait_for_a_bad_access_log(
    tmp_path: Path, read_resources: Read, envoy_binary: Path, protocol: str, delta: bool
) -> None:
    denied = 403 if protocol == "http" else 0
    async with fleet(tmp_path, read_resources, envoy_binary) as there:
        running = there.running
        await running.apply(mesh(there, protocol))
        await there.application("backend")
        for name in ("web", "backend"):
            there.start(name, delta)
        # Connections that are open keep what they have for a moment; each of these is a new one.
        async with httpx.AsyncClient(timeout=10, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            await until(client, lambda status, _: status == 200, there.port("call"))
            await put(there, "MeshAccessLog", BAD_LOG)
            state = await left_out(there, "backend", "MeshAccessLog")
            assert [(one["name"], one["resources"]) for one in state["leftOut"]] == [("bad", ["LDS self_inbound_in"])]
            assert any("MeshAccessLog bad is left out" in problem for problem in state["problems"])
            sample = running.control_plane.state.metrics.registry.get_sample_value
            labels = {"mesh": "default", "type": "MeshAccessLog"}
            assert sample("mesh_policies_quarantined", labels) == 1
            assert (await answer(client, there.port("call")))[0] == 200
            assert "leftOut" in await shown(there, "web")
            assert not (await shown(there, "web"))["leftOut"]  # it has no inbound, and nothing to refuse

            # A permission that is taken away is taken away, and one that is given is given.
            await delete(there, "MeshTrafficPermission", "web-calls")
            await until(client, lambda status, _: status == denied, there.port("call"))
            await running.apply(PERMISSION)
            await until(client, lambda status, _: status == 200, there.port("call"))

            # A proxy that starts anew is served, by a control plane that knows of the trouble or does not.
            there.kill("backend")
            there.start("backend", delta)
            await until(client, lambda status, _: status == 200, there.port("call"))
            assert (await shown(there, "backend"))["leftOut"]
            there.kill("backend")
            await running.stop()
            await running.start()
            there.start("backend", delta)
            await until(client, lambda status, _: status == 200, there.port("call"))
            await left_out(there, "backend", "MeshAccessLog")

            # It is tried again when it changes.
            good = {"path": str(tmp_path / "access.log"), "format": {"type": "Plain", "plain": "seen"}}
            await put(there, "MeshAccessLog", {"rules": [{"default": {"backends": [{"type": "File", "file": good}]}}]})
            await left_out(there, "backend")

            def logged() -> bool:
                return (tmp_path / "access.log").is_file() and "seen" in (tmp_path / "access.log").read_text()

            for _ in range(100):
                assert (await answer(client, there.port("call")))[0] == 200
                if logged():
                    break
                await asyncio.sleep(0.1)
            assert logged()


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "state of the world"])
async def test_every_kind_of_policy_is_left_out_by_itself(
    tmp_path: Path, read_resources: Read, envoy_binary: Path, delta: bool
) -> None:
    async with fleet(tmp_path, read_resources, envoy_binary) as there:
        await there.running.apply(mesh(there, "http"))
        await there.application("backend")
        for name in ("web", "backend"):
            there.start(name, delta)
        async with httpx.AsyncClient(timeout=10) as client:
            await until(client, lambda status, _: status == 200, there.port("call"))
            for type_name, spec in BAD.items():
                await put(there, type_name, spec)
                await left_out(there, "backend" if type_name == "MeshAccessLog" else "web", type_name)
                assert (await answer(client, there.port("call")))[0] == 200
                await delete(there, type_name)
                await left_out(there, "backend")
                await left_out(there, "web")
            # All at once, to proxies that start.
            for type_name, spec in BAD.items():
                await put(there, type_name, spec)
            for name in ("web", "backend"):
                there.kill(name)
                there.start(name, delta)
            await until(client, lambda status, _: status == 200, there.port("call"))
            await left_out(there, "backend", "MeshAccessLog")


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "state of the world"])
async def test_a_refusal_is_shown_as_long_as_it_lasts(
    tmp_path: Path, read_resources: Read, envoy_binary: Path, delta: bool
) -> None:
    """One that no policy is to blame for: an address that the host does not have."""
    async with fleet(tmp_path, read_resources, envoy_binary) as there:
        text = mesh(there, "http")
        inbound = f"      - {{port: {there.port('backend')}, "
        elsewhere = f"      - {{address: 192.0.2.7, port: {there.port('second')}, servicePort: 1, name: second}}\n"
        await there.running.apply(text)
        there.start("backend", delta)

        async def refused() -> list[dict[str, Any]]:
            [connection] = (await shown(there, "backend"))["connections"]
            return connection["types"].get("LDS", {}).get("refusals", [])

        async def until_refused(resources: list[str]) -> None:
            for _ in range(300):
                if [one["resource"] for one in await refused()] == resources:
                    return
                await asyncio.sleep(0.1)
            raise AssertionError(await refused())

        await eventually("connected", lambda: there.running.control_plane.state.proxies.named("default", "backend"))
        await asyncio.sleep(1)
        await there.running.apply(text.replace(inbound, elsewhere + inbound))
        await until_refused(["self_inbound_second"])
        [one] = await refused()
        assert "192.0.2.7" in one["because"]
        assert "Dataplane backend" in one["changed"]
        # Something else of the type is taken; the refusal is still there, and nothing is left out for it.
        await put(there, "MeshTrace", TRACE, "trace")
        [proxy] = there.running.control_plane.state.proxies.named("default", "backend")
        await asyncio.sleep(1.5)
        await until_refused(["self_inbound_second"])
        assert (await shown(there, "backend"))["leftOut"] == []
        # Its cause goes, and so does it.
        await there.running.apply(text)
        await until_refused([])
        [connection] = (await shown(there, "backend"))["connections"]
        assert connection["types"]["LDS"]["state"] == "settled"
        assert proxy.stream is not None


TRACE = {"default": {"backends": [{"type": "Zipkin", "zipkin": {"url": "http://127.0.0.1:9411/api/v2/spans"}}]}}
