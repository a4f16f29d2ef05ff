"""Two proxies whose keys are made in a real daemon that has joined the mesh as a node; all configuration is by ADS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from control.cli.dataplane import envoy_arguments
from deploy.demo.mesh.applications import application
from tests.control.mesh_process import free_port
from tests.control.resources import MESH_WITH_IDENTITY
from tests.control.scene import Read, Running
from tests.offload.daemon_process import DaemonProcess

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "envoy_ext" / "libtls_offload.so"
PLACED = f'offload.mesh/node: n1, offload.mesh/uid: "{os.getuid()}"'
IN_ENVOY = "type: MeshOffload\nname: all\nspec: {default: {mode: EnvoyTLS}}"


@dataclass(frozen=True)
class Ports:
    """Of the two proxies and what is behind them; nobody else has them."""

    call: int = field(default_factory=free_port)
    inbound: int = field(default_factory=free_port)
    application: int = field(default_factory=free_port)
    web_admin: int = field(default_factory=free_port)
    backend_admin: int = field(default_factory=free_port)


def two_services(ports: Ports) -> str:
    """web, which may call backend at `ports.call`, both placed on node n1 and run by us."""
    return (
        MESH_WITH_IDENTITY
        + f"""---
type: Dataplane
name: web-1
labels: {{app: web, kuma.io/workload: web, {PLACED}}}
spec:
  networking:
    address: 127.0.0.2
    admin: {{port: {ports.web_admin}}}
    outbound: [{{port: {ports.call}, backendRef: {{kind: MeshService, name: backend, port: 80}}}}]
---
type: Dataplane
name: backend-1
labels: {{app: backend, kuma.io/workload: backend, {PLACED}}}
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
    )


def offloaded(socket: Path, key_type: str) -> str:
    """The policy that has both keys made in the daemon at `socket`."""
    default = f"{{mode: Offload, keyType: {key_type}, socket: {socket}}}"
    return f"---\ntype: MeshOffload\nname: all\nspec: {{default: {default}}}\n"


PERMISSION = """
type: MeshTrafficPermission
name: web-calls
spec: {rules: [{default: {allow: [{spiffeID: {type: Exact, value: spiffe://default.default.mesh.local/workload/web}}]}}]}
"""


@dataclass(frozen=True)
class Pair:
    control_plane: Running
    daemon: DaemonProcess


@contextlib.asynccontextmanager
async def offloaded_pair(
    folder: Path, read: Read, envoy_binary: Path, ports: Ports, policy: str
) -> AsyncIterator[Pair]:
    control_plane, daemon = Running(folder, read), DaemonProcess(folder)
    await control_plane.start()
    await control_plane.apply(two_services(ports) + policy)
    (folder / "mesh-ca.pem").write_text(control_plane.certificate.ca_pem)
    (folder / "token").write_text(control_plane.tokens.issue("node", 600, name="n1"))
    files = {"ca_file": str(folder / "mesh-ca.pem"), "token_file": str(folder / "token")}
    daemon.configure(mesh={"control_plane": f"127.0.0.1:{control_plane.port}"} | files)
    await asyncio.to_thread(daemon.start)
    behind, envoys = await application("backend", ports.application), []
    environment = dict(os.environ) | {"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(MODULE.parent)}
    for name, admin in (("web-1", ports.web_admin), ("backend-1", ports.backend_admin)):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(control_plane.bootstrap(name, admin, delta=True)))
        command = envoy_arguments(str(envoy_binary), path, concurrency=1)
        log = (folder / f"{name}.log").open("w")
        started = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: ASYNC220 (comes back at once)
        envoys.append(started)
    try:
        yield Pair(control_plane, daemon)
    finally:
        for envoy in envoys:
            envoy.terminate()
        for envoy in envoys:
            envoy.wait(30)
        await asyncio.to_thread(daemon.stop)
        behind.close()
        await control_plane.stop()


def are_in(running: Running, offloaded: bool) -> bool:
    """Whether both proxies have acknowledged that their keys are there, and use nothing else any more."""
    proxies = [
        proxy for name in ("web-1", "backend-1") for proxy in running.control_plane.state.proxies.named("default", name)
    ]
    return len(proxies) == 2 and all(
        len(proxy.claims.possible) == 1 and (proxy.claims.possible[0].place is not None) is offloaded
        for proxy in proxies
    )
