"""Two services on real Envoys with Envoy's own TLS, web calling backend, and a count of what each call answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from control.cli.dataplane import envoy_arguments
from deploy.demo.mesh.applications import application
from tests.control.mesh_process import free_port
from tests.control.resources import MESH_WITH_IDENTITY
from tests.control.scene import Read, Running, answer, until

PERMISSION = """
type: MeshTrafficPermission
name: web-calls
spec: {rules: [{default: {allow: [{spiffeID: {type: Prefix, value: spiffe://default.default.mesh.local/}}]}}]}
"""


@dataclass(frozen=True)
class Ports:
    call: int = field(default_factory=free_port)
    inbound: int = field(default_factory=free_port)
    application: int = field(default_factory=free_port)
    web_admin: int = field(default_factory=free_port)
    backend_admin: int = field(default_factory=free_port)


def services(ports: Ports, more_labels: str = "") -> str:
    """`more_labels`: of both dataplanes."""
    return f"""---
type: Dataplane
name: web-1
labels: {{app: web, kuma.io/workload: web{more_labels}}}
spec:
  networking:
    address: 127.0.0.1
    admin: {{port: {ports.web_admin}}}
    outbound: [{{port: {ports.call}, backendRef: {{kind: MeshService, name: backend, port: 80}}}}]
---
type: Dataplane
name: backend-1
labels: {{app: backend, kuma.io/workload: backend{more_labels}}}
spec:
  networking:
    address: 127.0.0.1
    admin: {{port: {ports.backend_admin}}}
    inbound: [{{port: {ports.inbound}, servicePort: {ports.application}, name: http, protocol: http}}]
---
type: MeshService
name: backend
spec:
  selector: {{dataplaneLabels: {{matchLabels: {{app: backend}}}}}}
  ports: [{{port: 80, targetPort: http, appProtocol: http}}]
"""


class Live:
    def __init__(self, folder: Path, running: Running, envoy: Path, ports: Ports) -> None:
        self.folder, self.running, self.ports, self._envoy = folder, running, ports, envoy
        self._admin = {"web-1": ports.web_admin, "backend-1": ports.backend_admin}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # A connection for each call: each is a handshake of the caller's with us, and of web with backend.
        self.client = httpx.AsyncClient(timeout=5, limits=httpx.Limits(max_keepalive_connections=0))

    def start(self, *names: str) -> None:
        for name in names or self._admin:
            path = self.folder / f"{name}.json"
            path.write_text(json.dumps(self.running.bootstrap(name, self._admin[name], delta=True)))
            command = envoy_arguments(str(self._envoy), path, concurrency=1)
            with (self.folder / f"{name}.log").open("a") as log:
                self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self, *names: str) -> None:
        for name in names or list(self.processes):
            process = self.processes.pop(name)
            process.kill()
            process.wait(30)

    async def until(self, status: int) -> str:
        """The first answer with it, through the mesh."""
        return await until(self.client, lambda found, _: found == status, self.ports.call)

    async def call(self, times: int = 1, pause: float = 0.0) -> Counter[int]:
        seen: Counter[int] = Counter()
        for _ in range(times):
            seen[(await answer(self.client, self.ports.call))[0]] += 1
            await asyncio.sleep(pause)
        return seen

    async def call_while(self, condition: Callable[[], bool]) -> Counter[int]:
        seen: Counter[int] = Counter()
        while condition():
            seen += await self.call(pause=0.005)
        return seen


@asynccontextmanager
async def live(
    folder: Path, read: Read, envoy: Path, text: str | None = None, ports: Ports | None = None
) -> AsyncIterator[Live]:
    """With every call allowed, unless `text` says otherwise. No Envoy runs yet."""
    ports = ports or Ports()
    running = Running(folder, read)
    await running.start()
    await running.apply(text if text is not None else MESH_WITH_IDENTITY + services(ports) + "---" + PERMISSION)
    behind, scene = await application("backend", ports.application), Live(folder, running, envoy, ports)
    try:
        yield scene
    finally:
        await scene.client.aclose()
        scene.stop()
        behind.close()
        await running.stop()
