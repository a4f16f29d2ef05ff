"""A mesh of stock Envoys, configured over ADS by the control plane: who may call, canary, a restart under traffic.

Everything is on loopback addresses. The proxies use Envoy's own TLS, so that no daemon is needed.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from control.ca.rotation import Event, Stage, WrongStage
from control.cli.dataplane import envoy_arguments
from control.xds.encoding.encode import ROUTES
from deploy.demo.mesh.applications import application
from tests.control.scene import Read, Running, answer, until

pytestmark = pytest.mark.envoy

# Beside the ports that the other tests use.
WEB, BLUE, GREEN = 21310, 21320, 21330
# Where web calls the backend.
CALL = WEB + 1


def mesh() -> str:
    dataplane = """
type: Dataplane
name: {name}-1
labels: {{app: {app}, version: {name}, kuma.io/workload: {app}}}
spec:
  networking:
    address: 127.0.0.1
    admin: {{port: {admin}}}
    inbound: [{{port: {port}, servicePort: {service_port}, name: http, protocol: http}}]
    outbound: {outbound}
---
"""
    outbound = f"[{{port: {CALL}, backendRef: {{kind: MeshService, name: backend, port: 80}}}}]"
    parts = [
        dataplane.format(name="web", app="web", admin=WEB + 2, port=WEB, service_port=WEB + 3, outbound=outbound),
        dataplane.format(name="blue", app="backend", admin=BLUE + 2, port=BLUE, service_port=BLUE + 3, outbound="[]"),
        dataplane.format(
            name="green", app="backend", admin=GREEN + 2, port=GREEN, service_port=GREEN + 3, outbound="[]"
        ),
    ]
    for name, labels in (("backend", "app: backend"), ("blue", "version: blue"), ("green", "version: green")):
        parts.append(
            f"type: MeshService\nname: {name}\nspec:\n  selector: {{dataplaneLabels: {{matchLabels: {{{labels}}}}}}}\n"
            "  ports: [{port: 80, targetPort: http, appProtocol: http}]\n---\n"
        )
    provider = "{type: Bundled, bundled: {autogenerate: {enabled: true}}}"
    identity = f"{{selector: {{dataplane: {{matchLabels: {{}}}}}}, provider: {provider}}}"
    return (
        "type: Mesh\nname: default\n---\n" + "".join(parts) + f"type: MeshIdentity\nname: identity\nspec: {identity}\n"
    )


PERMISSION = """
type: MeshTrafficPermission
name: web-calls
spec:
  targetRef: {kind: Dataplane, labels: {app: backend}}
  rules: [{default: {allow: [{spiffeID: {type: Exact, value: spiffe://default.default.mesh.local/workload/web}}]}}]
"""
CANARY = """
type: MeshHTTPRoute
name: canary
spec:
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: backend}}
      rules:
        - matches: [{path: {type: PathPrefix, value: /}}]
          default:
            backendRefs:
              - {kind: MeshService, labels: {kuma.io/display-name: blue}, weight: %d}
              - {kind: MeshService, labels: {kuma.io/display-name: green}, weight: %d}
"""


@pytest.fixture
async def running(tmp_path: Path, read_resources: Read, envoy_binary: Path) -> AsyncIterator[Running]:
    control_plane = Running(tmp_path, read_resources)
    await control_plane.start()
    await control_plane.apply(mesh())
    applications = [
        await application(name, port + 3) for name, port in (("web", WEB), ("blue", BLUE), ("green", GREEN))
    ]
    envoys = []
    # One of them speaks state-of-the-world, so that both are seen working.
    for name, port, delta in (("web-1", WEB, True), ("blue-1", BLUE, False), ("green-1", GREEN, True)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(control_plane.bootstrap(name, port + 2, delta)))
        command = envoy_arguments(str(envoy_binary), path, concurrency=1)
        output = (tmp_path / f"{name}.log").open("w")
        envoys.append(subprocess.Popen(command, stdout=output, stderr=output))  # noqa: ASYNC220 (comes back at once)
    yield control_plane
    for envoy in envoys:
        envoy.terminate()
    for envoy in envoys:
        envoy.wait(30)
    for server in applications:
        server.close()
    await control_plane.stop()


async def test_a_mesh(running: Running) -> None:
    async with httpx.AsyncClient(timeout=10) as client:
        # Nobody may call anybody.
        assert await until(client, lambda status, _: status == 403, CALL) == "RBAC: access denied"

        # A permission lets traffic in, and the application is told who calls.
        await running.apply(PERMISSION)
        for _ in range(10):  # of both backends, in turn
            text = await until(client, lambda status, _: status == 200, CALL)
        assert "URI=spiffe://default.default.mesh.local/workload/web" in text

        # Strict: plaintext is not answered. Permissive: it is. And strict again.
        assert (await answer(client, BLUE))[0] == 0
        for mode, status in (("Permissive", 200), ("Strict", 0)):
            await running.apply(f"type: MeshTLS\nname: mode\nspec: {{rules: [{{default: {{mode: {mode}}}}}]}}")
            # A connection that is open stays what it is; each of these is a new one.
            async with httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0)) as outside:
                await until(outside, lambda found, _, wanted=status: found == wanted, BLUE)  # type: ignore[misc]

        # A switch from blue to green without a failed request, and shares by weight.
        await running.apply(CANARY % (1, 0))
        await until(client, lambda _, text: text.startswith("blue"), CALL)
        seen: Counter[str] = Counter()
        switch = asyncio.create_task(count_for(client, seen, 60))
        await running.apply(CANARY % (0, 1))
        await until(client, lambda _, text: text.startswith("green"), CALL)
        await switch
        assert set(seen) <= {"200 blue", "200 green"}
        await running.apply(CANARY % (90, 10))
        shares: Counter[str] = Counter()
        await until(client, lambda _, text: text.startswith("blue"), CALL)
        for _ in range(400):
            status, text = await answer(client, CALL)
            shares[f"{status} {text.split()[0]}"] += 1
        assert set(shares) == {"200 blue", "200 green"}
        # 40 of 400 on average; outside of these bounds with a probability below one in a million.
        assert 12 <= shares["200 green"] <= 75

        # A new CA without a failed request; each step waits until every proxy is as far.
        rotated: Counter[str] = Counter()
        traffic = asyncio.create_task(count_for(client, rotated, 200))
        before = running.control_plane.state.identities.issuer("default", "identity").fingerprint
        await rotate(running)
        await traffic
        assert set(rotated) <= {"200 blue", "200 green"}
        assert running.control_plane.state.identities.issuer("default", "identity").fingerprint != before

        # The control plane goes and comes back with traffic going on; nothing is sent again, and changes arrive.
        through: Counter[str] = Counter()
        traffic = asyncio.create_task(count_for(client, through, 150))
        await running.stop()
        await asyncio.sleep(0.5)
        await running.start()
        await traffic
        assert set(through) <= {"200 blue", "200 green"}
        await running.apply(CANARY % (0, 1))
        # A permission that is taken away does not live on in connections that are open, not for one request.
        await until(client, lambda _, text: text.startswith("green"), CALL)
        before = routes_version(running, "green-1")
        await running.apply(PERMISSION.replace("workload/web", "workload/nobody"))
        for _ in range(300):
            if routes_version(running, "green-1") not in (before, ""):
                break
            await asyncio.sleep(0.05)
        last = [(await answer(client, CALL))[0] for _ in range(20)]
        assert set(last) == {403}, last
        assert running.control_plane.state.metrics.nacks._metrics == {}


def routes_version(running: Running, name: str) -> str:
    """Which routes, and so which permissions, the proxy has taken."""
    return next(
        (
            p.stream.subscriptions[ROUTES].acked_version
            for p in running.control_plane.state.proxies.named("default", name)
            if p.stream
        ),
        "",
    )


async def rotate(running: Running) -> None:
    """In every stage clusters and listeners change too, so that there are new handshakes in it."""
    identity = running.store.get("MeshIdentity", "default", "identity")
    for number, event in enumerate((Event.BEGIN, Event.DISTRIBUTED, Event.REPLACED, Event.RETIRED)):
        for _ in range(300):
            try:
                rotation = await running.control_plane.rotations.rotate(identity, event)
                break
            except WrongStage as late:
                last = late
                await asyncio.sleep(0.1)
        else:
            raise last
        version = f"{{min: {('TLS12', 'TLS13')[number % 2]}, max: TLS13}}"
        await running.apply(f"type: MeshTLS\nname: version\nspec: {{rules: [{{default: {{tlsVersion: {version}}}}}]}}")
        await asyncio.sleep(0.5)
    assert rotation.stage is Stage.STABLE


async def count_for(client: httpx.AsyncClient, seen: Counter[str], requests: int) -> None:
    for _ in range(requests):
        status, text = await answer(client, CALL)
        seen[f"{status} {text.split()[0] if text else ''}"] += 1
        await asyncio.sleep(0.02)
