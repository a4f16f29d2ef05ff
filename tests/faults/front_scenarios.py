"""Attacks on the control plane's ports by somebody without credentials; what an administrator and a proxy see of them.

A real `mesh serve`. While the attack goes on, an administrator makes a change over a new connection, a proxy whose
stream is open gets it, and another proxy connects anew and gets it too; that again and again. The attacker comes from
another address of this host. Memory and log of the process are bounded as well.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import grpc
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from control.xds.encoding.encode import CLUSTER
from tests.control.mesh_process import ControlPlane
from tests.faults.attack_scenarios import attacker_process, resident_mib
from tests.faults.front_attackers import API, XDS
from tests.faults.rig import Result, Scenario

SECONDS = 4.0
ATTACKER = "127.0.0.2"
# Of one change, to the two proxies; an administrator has given up before.
CHANGE_S = 30.0
# What strangers may cost as long as they are there (docs/design/security-model.md), and in the log of an attack.
MEMORY_GROWTH_MIB = 250
LOG_GROWTH_BYTES = 20_000

# What was seen before there were bounds, of the same attacks with the usual 1,024 descriptors, from the same address.
BEFORE = {
    ("api", "idle"): "a request takes 9 s; 8 MB of log in 8 s; 130 to 579 MiB",
    ("api", "silent"): "all stay; 130 to 222 MiB",
    ("api", "slow_headers"): "all stay; 130 to 222 MiB",
    ("api", "slow_body"): "all are read for 30 s; 130 to 224 MiB",
    ("api", "big_body"): "all are read; 130 to 589 MiB, kept",
    ("xds", "idle"): "API, xDS and store stop; 0.8 MB of log",
    ("xds", "silent"): "all stay; 130 to 151 MiB",
    ("xds", "calls"): "all are read for 10 s; 130 to 552 MiB; 0.9 MB of log",
}

DATAPLANE = """
type: Dataplane
name: web-1
mesh: default
spec: {networking: {address: 10.0.0.1, inbound: [{port: %d, protocol: http}]}}
"""


class Proxy:
    """A stream of clusters, over a connection of its own."""

    def __init__(self, mesh: ControlPlane, token: str) -> None:
        credentials = grpc.ssl_channel_credentials((mesh.data / "ca.pem").read_bytes())
        # Each on its own connection, where gRPC would share one.
        own = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.aio.secure_channel(f"127.0.0.1:{mesh.xds}", credentials, options=own)
        metadata = [("authorization", f"Bearer {token}")]
        self.stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(self.channel).StreamAggregatedResources(
            metadata=metadata, wait_for_ready=True
        )

    async def ask(self) -> None:
        await self.stream.write(discovery_pb2.DiscoveryRequest(type_url=CLUSTER, node={"id": "default.web-1"}))

    async def sees(self, port: int) -> None:
        while True:
            answer: Any = await self.stream.read()
            assert isinstance(answer, discovery_pb2.DiscoveryResponse), f"the stream ended: {answer}"
            acknowledged = {"version_info": answer.version_info, "response_nonce": answer.nonce}
            await self.stream.write(discovery_pb2.DiscoveryRequest(type_url=CLUSTER, **acknowledged))
            if any(_has_port(one.value, port) for one in answer.resources):
                return


def _has_port(cluster: bytes, port: int) -> bool:
    found = Cluster.FromString(cluster).load_assignment.endpoints
    return any(one.endpoint.address.socket_address.port_value == port for group in found for one in group.lb_endpoints)


async def _one_change(mesh: ControlPlane, token: str, open_: Proxy, port: int) -> None:
    applied = mesh.run("apply", "-f", "-", stdin=DATAPLANE % port)
    assert applied.returncode == 0, applied.stderr
    await asyncio.wait_for(open_.sees(port), CHANGE_S)
    another = Proxy(mesh, token)
    try:
        await another.ask()
        await asyncio.wait_for(another.sees(port), CHANGE_S)
    finally:
        await another.channel.close()


async def _play(which: str, kind: str, mesh: ControlPlane) -> Result:
    assert mesh.process is not None
    log, pid = mesh.folder / "serve.log", mesh.process.pid
    mesh.output("apply", "-f", "-", stdin="type: Mesh\nname: default\n")
    port = 20_000
    mesh.output("apply", "-f", "-", stdin=DATAPLANE % port)
    token = mesh.output("generate", "dataplane-token", "--name", "web-1").strip()
    proxy = Proxy(mesh, token)
    await proxy.ask()
    await asyncio.wait_for(proxy.sees(port), CHANGE_S)
    memory, written = resident_mib(pid), log.stat().st_size
    most, longest, changes, failed = memory, 0.0, 0, list[str]()
    end = f"127.0.0.1:{mesh.api if which == 'api' else mesh.xds}"
    with attacker_process("tests.faults.front_attackers", which, kind, end, SECONDS, ATTACKER) as attacker:
        while attacker.poll() is None:
            port += 1
            changes += 1
            began = time.monotonic()
            try:
                await _one_change(mesh, token, proxy, port)
            except (AssertionError, TimeoutError, grpc.aio.AioRpcError) as error:
                failed.append(f"{type(error).__name__} {error}")
            longest = max(longest, time.monotonic() - began)
            most = max(most, resident_mib(pid))
        assert attacker.stdout is not None
        did = json.loads(attacker.stdout.read())
    await proxy.channel.close()
    attacked = (API if which == "api" else XDS)[kind]
    # Not all of so many need have come to it on a slow machine.
    assert did["connected"] > 20, did
    assert not failed, failed
    text = log.read_bytes()[written:].decode()
    # But for the audit log's lines: they are the administrator's, who made changes as fast as this machine could.
    grown = sum(len(line) + 1 for line in text.splitlines() if not line.startswith("{"))
    assert "Traceback" not in text, text[-3000:]
    assert grown < LOG_GROWTH_BYTES, text[-3000:]
    assert most - memory < MEMORY_GROWTH_MIB, f"from {memory:.0f} to {most:.0f} MiB"
    return Result(
        f"control plane, {'API' if which == 'api' else 'xDS'}: {attacked.what}",
        f"memory {memory:.0f} to {most:.0f} MiB, {grown} bytes of log",
        tried=changes,
        longest_gap_ms=1000 * longest,
        before=BEFORE[which, kind],
    )


def _scenario(which: str, kind: str) -> Scenario:
    def run(folder: Path) -> Result:
        mesh = ControlPlane(folder)
        mesh.start()
        try:
            result = asyncio.run(_play(which, kind, mesh))
        finally:
            status = mesh.stop()
        assert status == 0, "the control plane ends properly"
        return result

    run.__name__ = f"front_{which}_{kind}"
    return run


ALL = (*(_scenario("api", kind) for kind in API), *(_scenario("xds", kind) for kind in XDS))
