"""A permission that is taken away ends: for HTTP with the next request, for TCP within ten seconds."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from control.cli.dataplane import DRAIN_S
from control.xds.encoding.encode import LISTENER
from deploy.node.waiting import eventually
from tests.control.fleet import Fleet, fleet
from tests.control.resources import MESH_WITH_IDENTITY
from tests.control.scene import Read

pytestmark = pytest.mark.envoy

PERMISSION = """
type: MeshTrafficPermission
name: web-calls
spec: {rules: [{default: {allow: [{spiffeID: {type: Exact, value: spiffe://default.default.mesh.local/workload/%s}}]}}]}
"""


def mesh(there: Fleet) -> str:
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
    inbound: [{{port: {there.port("backend")}, servicePort: {there.port("echo")}, name: bytes, protocol: tcp}}]
---
type: MeshService
name: backend
spec:
  selector: {{dataplaneLabels: {{matchLabels: {{app: backend}}}}}}
  ports: [{{port: 80, targetPort: bytes, appProtocol: tcp}}]
---{PERMISSION % "web"}"""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has been answered."""
    for _ in range(300):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"a")
            if await reader.read(1) == b"a":
                return reader, writer
            writer.close()
        except OSError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("nobody answers")


async def used_to_its_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(60):
        while True:
            writer.write(b"a")
            if not await reader.read(1):
                return
            await asyncio.sleep(0.2)


async def test_a_tcp_connection_ends_soon_after_its_permission(
    tmp_path: Path, read_resources: Read, envoy_binary: Path
) -> None:
    async with fleet(tmp_path, read_resources, envoy_binary) as there:
        server = await asyncio.start_server(echo, "127.0.0.1", there.port("echo"))
        await there.running.apply(mesh(there))
        for name in ("web", "backend"):
            there.start(name)
        reader, writer = await connect(there.port("call"))
        [proxy] = there.running.control_plane.state.proxies.named("default", "backend")
        assert proxy.stream is not None
        listeners = proxy.stream.subscriptions[LISTENER]
        before = listeners.acked_version
        await there.running.apply(PERMISSION % "nobody")
        await eventually("the listener without the permission", lambda: listeners.acked_version != before)
        acknowledged = time.monotonic()
        await used_to_its_end(reader, writer)
        assert time.monotonic() < acknowledged + DRAIN_S + 2
        with pytest.raises(TimeoutError):  # and nobody comes in again
            await asyncio.wait_for(connect(there.port("call")), 2)
        server.close()
