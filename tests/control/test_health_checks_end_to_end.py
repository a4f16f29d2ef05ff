"""MeshHealthCheck on real Envoys: what is taken away gets nothing more; who starts with the others is soon known."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from deploy.node.waiting import eventually
from tests.control.fleet import Fleet, Load, fleet
from tests.control.scene import Read

pytestmark = pytest.mark.envoy

HEALTH = """---
type: MeshHealthCheck
name: health
spec:
  to: [{targetRef: {kind: Mesh}, default: {interval: 1s, timeout: 1s, http: {path: /health}}}]
"""


def mesh(there: Fleet) -> str:
    backends = "".join(
        f"""---
type: Dataplane
name: {name}
labels: {{app: backend}}
spec:
  networking:
    address: 127.0.0.1
    admin: {{port: {there.port(f"{name}-admin")}}}
    inbound: [{{port: {there.port(name)}, servicePort: {there.port(f"{name}-app")}, name: http, protocol: http}}]
"""
        for name in ("one", "two")
    )
    return f"""type: Mesh
name: default
---
type: Dataplane
name: web
labels: {{app: web}}
spec:
  networking:
    address: 127.0.0.1
    admin: {{port: {there.port("web-admin")}}}
    outbound: [{{port: {there.port("call")}, backendRef: {{kind: MeshService, name: backend, port: 80}}}}]
---
type: MeshService
name: backend
spec:
  selector: {{dataplaneLabels: {{matchLabels: {{app: backend}}}}}}
  ports: [{{port: 80, targetPort: http, appProtocol: http}}]
{backends}{HEALTH}"""


async def test_an_endpoint_that_is_taken_away_gets_no_request_although_it_is_well(
    tmp_path: Path, read_resources: Read, envoy_binary: Path
) -> None:
    async with fleet(tmp_path, read_resources, envoy_binary) as there:
        await there.running.apply(mesh(there))
        for name in ("one", "two"):
            await there.application(name)
            there.start(name)
        there.start("web")
        async with Load(there.port("call")) as load:
            await eventually("both answer", lambda: load.texts["one"] and load.texts["two"])
            async with httpx.AsyncClient() as client:
                stats = f"http://127.0.0.1:{there.port('web-admin')}/stats?filter=membership_healthy"
                for _ in range(900):  # one that has not passed a check yet would go anyway
                    if ": 2\n" in (await client.get(stats)).text:
                        break
                    await asyncio.sleep(0.1)
                else:
                    raise AssertionError("the two were never well")
            await there.running.control_plane.changes.delete("Dataplane", "default", "two")
            await asyncio.sleep(2)  # in which the news arrive; the Envoy of it goes on
            before = load.texts["two"]
            await load.more(300)
            assert load.texts["two"] == before


async def sick(port: int) -> asyncio.Server:
    """Answers every request with 500."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 500 Sick\r\ncontent-length: 4\r\n\r\nsick")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", port)


async def test_those_who_start_after_the_first_check_are_known_within_moments(
    tmp_path: Path, read_resources: Read, envoy_binary: Path
) -> None:
    """Nobody is there at the first check, and nobody calls: the next one must not be a minute away."""
    async with fleet(tmp_path, read_resources, envoy_binary) as there:
        await there.running.apply(mesh(there))
        there.start("web")
        await eventually("web", lambda: there.running.control_plane.state.proxies.named("default", "web"))
        await asyncio.sleep(3)
        await there.application("one")
        bad = await sick(there.port("two-app"))
        there.start("one")
        there.start("two")
        await asyncio.sleep(8)
        async with Load(there.port("call")) as load:
            await load.more(200)
        assert load.failed == {}
        bad.close()
