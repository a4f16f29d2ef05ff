"""A whole mesh that changes under load: a control plane, and Envoys that use their own TLS, without a daemon.

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
NONE_FAILS = "no request fails"
NOBODY = '{spiffeID: {type: Exact, value: "spiffe://one.test/nobody"}}'


def read(text: str) -> list[Resource]:
    return documents.read(text, "faults", KINDS, default_mesh="default")


def backend(there: Fleet, name: str, labels: str = "workload: backend") -> str:
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
    parts = (MESH, web, backend(there, "one"), backend(there, "two"), PERMISSION % ANYBODY)
    await there.running.apply("---".join(parts))
    for name in ("one", "two"):
        await there.application(name)
        there.start(name)
    there.start("web")


async def let_in_without_permission(there: Fleet, load: Load) -> tuple[int, int]:
    """Nobody is permitted any more: how many of how many requests are let in once that has settled."""
    await there.running.apply(PERMISSION % NOBODY)
    await asyncio.sleep(SETTLE_S)
    load.seen.clear()
    await asyncio.sleep(SETTLE_S)
    let_in = load.seen["200"]
    return let_in + load.seen["403"], let_in


Steps = Callable[[Fleet, Load], Awaitable[Any]]


def scenario(name: str, must_hold: str, function: str, steps: Steps, before: str) -> Scenario:
    """`steps` has the mesh and the load, which is on; it counts itself, or all requests that fail meanwhile count.

    `before`: what was seen before the control plane acted on evidence; empty where nobody has counted.
    """

    async def play(folder: Path) -> Result:
        binary = envoy_path()
        if binary is None:
            raise RuntimeError("the stock Envoy binary is missing: make setup")
        made = fleet(folder, read, binary, OFFLINE_AFTER_S)
        async with made as there:
            await _start(there)
            async with Load(there.port("call")) as load:
                await asyncio.sleep(SETTLE_S)
                load.seen.clear()
                counted = await steps(there, load)
            failed = sum(count for what, count in load.seen.items() if not what.isdigit())
            tried, failed = counted or (load.seen["200"] + failed, failed)
            result = Result(f"mesh: {name}", must_hold, tried=tried, failed=failed, before=before)
        assert result.failed == 0, f"{name}: {result.failed} of {result.tried} requests failed: {load.failed}"
        return result

    def run(folder: Path) -> Result:
        return asyncio.run(play(folder))

    run.__name__ = function
    return run
