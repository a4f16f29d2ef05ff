"""Changes of a whole mesh under load: a control plane, and Envoys that use their own TLS, so that no daemon is needed.

Two callers, one request after the other, from a service whose proxy keeps its connections open to two backends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from control.kinds import KINDS
from control.model import documents
from control.model.resource import Resource
from tests.conftest import envoy_path
from tests.control.fleet import Fleet, Load, fleet
from tests.faults.rig import Result, Scenario

# A change has reached everybody long before.
SETTLE_S = 3.0
OFFLINE_AFTER_S = 2.0

MESH = """
type: Mesh
name: default
---
type: MeshService
name: backend
spec:
  selector: {dataplaneLabels: {matchLabels: {app: backend}}}
  ports: [{port: 80, targetPort: http, appProtocol: http}]
"""
IDENTITY = """
type: MeshIdentity
name: identity
spec:
  selector: {dataplane: {matchLabels: {}}}
  spiffeID: {trustDomain: %s, path: "/%s/{{ .Workload }}"}
  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}
"""
PERMISSION = """
type: MeshTrafficPermission
name: all
spec: {rules: [{default: {allow: [%s]}}]}
"""
ANYBODY = ", ".join(
    f'{{spiffeID: {{type: Prefix, value: "spiffe://{domain}"}}}}' for domain in ("one.test", "two.test")
)
NOBODY = '{spiffeID: {type: Exact, value: "spiffe://one.test/nobody"}}'


def _read(text: str) -> list[Resource]:
    return documents.read(text, "faults", KINDS, default_mesh="default")


def _backend(there: Fleet, name: str, labels: str = "workload: backend") -> str:
    inbound = f"{{port: {there.port(name)}, servicePort: {there.port(name + '-app')}, name: http, protocol: http}}"
    return f"""
type: Dataplane
name: {name}
labels: {{app: backend, kuma.io/{labels}}}
spec: {{networking: {{address: 127.0.0.1, inbound: [{inbound}]}}}}
"""


async def _start(there: Fleet) -> None:
    outbound = f"{{port: {there.port('call')}, backendRef: {{kind: MeshService, name: backend, port: 80}}}}"
    web = f"""
type: Dataplane
name: web
labels: {{app: web, kuma.io/workload: web}}
spec: {{networking: {{address: 127.0.0.1, outbound: [{outbound}]}}}}
"""
    parts = (MESH, web, _backend(there, "one"), _backend(there, "two"), PERMISSION % ANYBODY)
    await there.running.apply("---".join(parts))
    for name in ("one", "two"):
        await there.application(name)
        there.start(name)
    there.start("web")


Steps = Callable[[Fleet, Load], Awaitable[Any]]


def _scenario(name: str, must_hold: str, function: str, steps: Steps) -> Scenario:
    """`steps` has the mesh and the load, which is on; it counts itself, or all requests that fail meanwhile count."""

    async def play(folder: Path) -> Result:
        binary = envoy_path()
        if binary is None:
            raise RuntimeError("the stock Envoy binary is missing: make setup")
        made = fleet(folder, _read, binary, OFFLINE_AFTER_S)
        async with made as there:
            await _start(there)
            async with Load(there.port("call")) as load:
                await asyncio.sleep(SETTLE_S)
                load.seen.clear()
                counted = await steps(there, load)
            failed = sum(count for what, count in load.seen.items() if not what.isdigit())
            tried, failed = counted or (load.seen["200"] + failed, failed)
            result = Result(f"mesh: {name}", must_hold, tried=tried, failed=failed)
        assert result.failed == 0, f"{name}: {result.failed} of {result.tried} requests failed: {load.failed}"
        return result

    def run(folder: Path) -> Result:
        return asyncio.run(play(folder))

    run.__name__ = function
    return run


async def _identities(there: Fleet, _: Load) -> None:
    for domain, path in (("one.test", "workload"), ("one.test", "sa"), ("two.test", "sa")):
        await there.running.apply(IDENTITY % (domain, path))
        await asyncio.sleep(SETTLE_S)
    await there.running.plane.delete("MeshIdentity", "default", "identity")
    await asyncio.sleep(SETTLE_S)


async def _late(there: Fleet, _: Load) -> None:
    """What one of the two is given comes to it three seconds later."""
    [proxy] = there.running.plane.connected("default", "two")
    offer, held = proxy.offer, list[Any]()

    def later(*given: Any) -> None:
        if hasattr(proxy, "claims"):
            proxy.claims.offer(given[0].facts)
        held[:] = given

    setattr(proxy, "offer", later)  # noqa: B010
    await there.running.apply(IDENTITY % ("one.test", "workload"))
    await asyncio.sleep(SETTLE_S)
    setattr(proxy, "offer", offer)  # noqa: B010
    offer(*held)
    await asyncio.sleep(SETTLE_S)


async def _label(there: Fleet, _: Load) -> None:
    await there.running.apply(IDENTITY % ("one.test", "workload"))
    await asyncio.sleep(SETTLE_S)
    await there.application("three")
    await there.running.apply(_backend(there, "three", "zone: default"))
    there.start("three")
    await asyncio.sleep(2 * SETTLE_S)


async def _modes(there: Fleet, _: Load) -> None:
    await there.running.apply(IDENTITY % ("one.test", "workload"))
    for mode in ("Permissive", "Strict", "Permissive", "Strict"):
        await there.running.apply(f"type: MeshTLS\nname: mode\nspec: {{rules: [{{default: {{mode: {mode}}}}}]}}")
        await asyncio.sleep(SETTLE_S)


async def _killed(there: Fleet, load: Load) -> None:
    """Counted from the end of the grace time on."""
    there.kill("two")
    await asyncio.sleep(OFFLINE_AFTER_S + SETTLE_S)
    load.seen.clear()
    await asyncio.sleep(2 * SETTLE_S)


async def _permission(there: Fleet, load: Load) -> tuple[int, int]:
    """A request that is let in counts as one that failed."""
    await there.running.apply(IDENTITY % ("one.test", "workload"))
    await asyncio.sleep(SETTLE_S)
    await there.running.apply(PERMISSION % NOBODY)
    await asyncio.sleep(SETTLE_S)
    load.seen.clear()
    await asyncio.sleep(SETTLE_S)
    let_in = load.seen["200"]
    return let_in + load.seen["403"], let_in


_NONE = "no request fails"
ALL = (
    _scenario("identities come, other paths, another trust domain, and go", _NONE, "mesh_identities", _identities),
    _scenario("one of two servers gets its identity 3 s late", _NONE, "mesh_server_is_late", _late),
    _scenario("MeshTLS Permissive and Strict in turn", _NONE, "mesh_tls_modes", _modes),
    _scenario("a third server, without the label of its identity", _NONE, "mesh_label_is_missing", _label),
    _scenario("a proxy killed, from --offline-after (2 s) on", _NONE, "mesh_proxy_is_killed", _killed),
    _scenario("a permission taken away", "no request is let in any more", "mesh_permission_ends", _permission),
)
