"""Mode Offload end to end: both keys are made in the real daemon, which has joined the mesh as a node, both Envoys have
the module, all configuration is by ADS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from control.rest import proxy_statistics
from deploy.node.waiting import eventually
from tests.control.fleet import Load
from tests.control.offloaded_pair import IN_ENVOY, MODULE, PERMISSION, Ports, are_in, offloaded, offloaded_pair
from tests.control.scene import Read, Running, answer, until
from tests.offload.daemon_process import DaemonProcess

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not MODULE.is_file(), reason="the module is not built: make build"),
]

ID = "spiffe://default.default.mesh.local/workload/backend"
CALLER = "spiffe://default.default.mesh.local/workload/web"


@pytest.fixture
def ports() -> Ports:
    return Ports()


@pytest.fixture
def in_daemon(tmp_path: Path) -> str:
    """The policy: both keys are made in the daemon."""
    return offloaded(DaemonProcess(tmp_path).socket, "rsa2048")


@pytest.fixture
async def running(
    tmp_path: Path, read_resources: Read, envoy_binary: Path, ports: Ports, in_daemon: str
) -> AsyncIterator[Running]:
    async with offloaded_pair(tmp_path, read_resources, envoy_binary, ports, in_daemon) as pair:
        yield pair.control_plane


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
        view = await running.control_plane.views.view("default")
        for dataplane in view.dataplanes:
            read = await asyncio.to_thread(
                proxy_statistics.read, running.control_plane.state.identities, view, dataplane, "tls_offload", "text"
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
        await running.apply(IN_ENVOY)
        await until(client, lambda status, body: status == 200 and "Hash=" in body, ports.call)
        # And back, with requests going on all the time: the proxies wait until the daemon has made the keys anew.
        calls = asyncio.create_task(calls_until(client, ports.call, lambda body: "Hash=" not in body))
        await asyncio.sleep(0.5)
        await running.apply(in_daemon)
        answers = await asyncio.wait_for(calls, 60)
        assert {text for status, text in answers if status != 200} == set()
        assert "Hash=" in answers[0][1]
        for name in ("web-1", "backend-1"):
            assert not running.control_plane.state.identities.keeps("default", name), (
                "the key of Envoy's own TLS is still kept"
            )
        assert running.control_plane.state.metrics.nacks._metrics == {}


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
    async with Load(ports.call, callers=4, pause=0) as load:
        for policy, place in ((IN_ENVOY, False), (in_daemon, True)) * 3:
            await running.apply(policy)
            await eventually(f"{policy}: {load.failed}", lambda wanted=place: are_in(running, offloaded=wanted))
            await load.more(200)
    assert load.failed == {}
