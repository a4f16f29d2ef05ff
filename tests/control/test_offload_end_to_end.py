"""Mode Offload end to end: both keys are made in the real daemon, which has joined the mesh as a node, both Envoys have
the module, all configuration is by ADS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from control import statistics
from control.cli.dataplane import envoy_arguments
from control.model.resource import Resource
from deploy.demo.mesh.applications import application
from tests.control.fleet import Load, eventually
from tests.control.mesh_process import free_port
from tests.control.resources import MESH_WITH_IDENTITY
from tests.control.scene import Running, answer, until
from tests.offload.daemon_process import DaemonProcess

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "envoy_ext" / "libtls_offload.so"
pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not MODULE.is_file(), reason="the module is not built: make build"),
]

ID = "spiffe://default.default.mesh.local/workload/backend"
CALLER = "spiffe://default.default.mesh.local/workload/web"

PLACED = f'offload.mesh/node: n1, offload.mesh/uid: "{os.getuid()}"'


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


@pytest.fixture
def ports() -> Ports:
    return Ports()


@pytest.fixture
def in_daemon(tmp_path: Path) -> str:
    """The policy: both keys are made in the daemon."""
    return offloaded(DaemonProcess(tmp_path).socket, "rsa2048")


@pytest.fixture
async def running(
    tmp_path: Path, read_resources: Callable[[str], list[Resource]], envoy_binary: Path, ports: Ports, in_daemon: str
) -> AsyncIterator[Running]:
    control_plane, daemon = Running(tmp_path, read_resources), DaemonProcess(tmp_path)
    await control_plane.start()
    await control_plane.apply(two_services(ports) + in_daemon)
    (tmp_path / "mesh-ca.pem").write_text(control_plane.certificate.ca_pem)
    (tmp_path / "token").write_text(control_plane.tokens.issue("node", 600, name="n1"))
    files = {"ca_file": str(tmp_path / "mesh-ca.pem"), "token_file": str(tmp_path / "token")}
    daemon.configure(mesh={"control_plane": f"127.0.0.1:{control_plane.port}"} | files)
    await asyncio.to_thread(daemon.start)
    behind, envoys = await application("backend", ports.application), []
    environment = dict(os.environ) | {"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(MODULE.parent)}
    for name, admin in (("web-1", ports.web_admin), ("backend-1", ports.backend_admin)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(control_plane.bootstrap(name, admin, delta=True)))
        command = envoy_arguments(str(envoy_binary), path, concurrency=1)
        log = (tmp_path / f"{name}.log").open("w")
        started = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: ASYNC220 (comes back at once)
        envoys.append(started)
    yield control_plane
    for envoy in envoys:
        envoy.terminate()
    for envoy in envoys:
        envoy.wait(30)
    await asyncio.to_thread(daemon.stop)
    behind.close()
    await control_plane.stop()


async def test_the_module_serves_what_the_control_plane_says(running: Running, ports: Ports, in_daemon: str) -> None:
    async with httpx.AsyncClient(timeout=10) as client:
        # The handshake is the daemon's and the verified caller reaches the permission filter, which lets nobody in yet.
        assert await until(client, lambda status, _: status == 403, ports.call) == "RBAC: access denied"
        await running.apply(PERMISSION)
        text = await until(client, lambda status, _: status == 200, ports.call)
        # The application is told who calls, and a caller cannot say it is somebody else.
        told = f"By={ID};URI={CALLER}"
        assert told in text
        forged = await client.get(
            f"http://127.0.0.1:{ports.call}/", headers={"x-forwarded-client-cert": "URI=spiffe://evil/x"}
        )
        assert told in forged.text
        assert "evil" not in forged.text
        # Plaintext is not answered.
        assert (await answer(client, ports.inbound))[0] == 0
        stats = (await client.get(f"http://127.0.0.1:{ports.backend_admin}/stats?filter=tls_offload")).text
        assert "tls_offload" in stats
        assert "operations_ok" in stats
        # The control plane reads them too: of web over the module's mutual TLS, of backend on its own host.
        view = await running.plane.view("default")
        for dataplane in view.dataplanes:
            read = await asyncio.to_thread(
                statistics.read, running.plane.identities, view, dataplane, "tls_offload", "text"
            )
            assert b"operations_ok" in read
        # No key, and nothing to verify peers with, is in either Envoy's configuration.
        for admin in (ports.web_admin, ports.backend_admin):
            dump = (await client.get(f"http://127.0.0.1:{admin}/config_dump")).text
            assert "PRIVATE KEY" not in dump
            assert "tls_certificate_sds_secret_configs" not in dump
            assert "transport_sockets.dynamic_modules" in dump
        # To Envoy's own TLS without a restart; its header has the certificate's hash, which the module's has not.
        assert "Hash=" not in text
        await running.apply("type: MeshOffload\nname: all\nspec: {default: {mode: EnvoyTLS}}")
        await until(client, lambda status, body: status == 200 and "Hash=" in body, ports.call)
        # And back, with requests going on all the time: the proxies wait until the daemon has made the keys anew.
        calls = asyncio.create_task(calls_until(client, ports.call, lambda body: "Hash=" not in body))
        await asyncio.sleep(0.5)
        await running.apply(in_daemon)
        answers = await asyncio.wait_for(calls, 60)
        assert {text for status, text in answers if status != 200} == set()
        assert "Hash=" in answers[0][1]
        for name in ("web-1", "backend-1"):
            assert not running.plane.identities.keeps("default", name), "the key of Envoy's own TLS is still kept"
        assert running.plane.metrics.nacks._metrics == {}


async def calls_until(
    client: httpx.AsyncClient, port: int, wanted: Callable[[str], bool], after: int = 200
) -> list[tuple[int, str]]:
    """Answers to calls one after the other, until one is wanted, and a number more after that."""
    answers: list[tuple[int, str]] = []
    left = after
    while left > 0:
        answers.append(await answer(client, port))
        if left < after or wanted(answers[-1][1]):
            left -= 1
        await asyncio.sleep(0.005)
    return answers


async def test_switches_lose_no_call(running: Running, ports: Ports, in_daemon: str) -> None:
    """Between the daemon and Envoy's own TLS, both ways, with many new connections all the time."""
    await running.apply(PERMISSION)
    own = "type: MeshOffload\nname: all\nspec: {default: {mode: EnvoyTLS}}"
    async with Load(ports.call, callers=4, pause=0) as load:
        for policy, place in ((own, False), (in_daemon, True)) * 3:
            await running.apply(policy)
            await eventually(lambda wanted=place: are_in(running, offloaded=wanted), f"{policy}: {load.failed}")  # type: ignore[misc]
            await load.more(200)
    assert load.failed == {}


def are_in(running: Running, offloaded: bool) -> bool:
    """Whether both proxies have acknowledged that their keys are there, and use nothing else any more."""
    proxies = [proxy for name in ("web-1", "backend-1") for proxy in running.plane.connected("default", name)]
    return len(proxies) == 2 and all(
        len(proxy.claims.possible) == 1 and (proxy.claims.possible[0].place is not None) is offloaded
        for proxy in proxies
    )
