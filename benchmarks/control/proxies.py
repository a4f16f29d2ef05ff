"""Simulated proxies, all in one process: each a separate channel over TLS and a delta ADS stream that acknowledges.

Controlled by JSON lines on standard input; responds with JSON lines:

    {"do": "connect"}    -> {"connected": n, "seconds": s}    when every proxy has acknowledged all that it waits for
    {"do": "await", "cluster": name, "since": t}   -> {"updated": n, "last": t}   t: seconds since 1970
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from benchmarks.control.mesh import Mesh, cluster_name

TYPES = "type.googleapis.com/envoy.config."
CLUSTER = TYPES + "cluster.v3.Cluster"
ENDPOINTS = TYPES + "endpoint.v3.ClusterLoadAssignment"
LISTENER = TYPES + "listener.v3.Listener"
ROUTES = TYPES + "route.v3.RouteConfiguration"
SETTLE_SECONDS = 180
_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)


class Proxy:
    """Does what Envoy would do: subscribes to what clusters and listeners need, and acknowledges everything."""

    def __init__(self, mesh: Mesh, number: int, target: str, credentials: grpc.ChannelCredentials, token: str) -> None:
        self._mesh, self._number = mesh, number
        self._target, self._credentials, self._token = target, credentials, token
        self.wanted = [cluster_name(called) for called in mesh.calls(number)]
        self.missing: set[tuple[str, str]] = set()
        self.updated_at: dict[str, float] = {}  # by cluster: when the last update of its endpoints was acknowledged
        self.ready = asyncio.Event()
        self.reconnects = 0
        self.task: asyncio.Task[None] | None = None
        self._channel: grpc.aio.Channel | None = None

    def start(self) -> None:
        self.ready.clear()
        self.missing = {(kind, name) for kind in (ENDPOINTS, ROUTES) for name in self.wanted}
        self.missing |= {(CLUSTER, ""), (LISTENER, "")}
        self.task = asyncio.create_task(self._stay_connected())

    async def _stay_connected(self) -> None:
        """Reconnects when a connection fails, as Envoy does: after half a second and more, with jitter."""
        pause = 0.5
        while True:
            try:
                await self._converse()
            except grpc.aio.AioRpcError as error:
                # INTERNAL and CANCELLED are the errors of writes and reads on a stream that has just broken.
                if error.code() not in _BROKEN:
                    raise
            if self._channel is not None:
                await self._channel.close()
            self.reconnects += 1
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause = min(2 * pause, 10)

    async def _converse(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.secure_channel(self._target, self._credentials, options=options)
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(self._channel)
        call = stub.DeltaAggregatedResources(
            metadata=(("authorization", f"Bearer {self._token}"),), wait_for_ready=True
        )
        node = {"id": f"default.dp-{self._number}"}
        for kind in (CLUSTER, LISTENER):
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(type_url=kind, node=node, resource_names_subscribe=["*"])
            )
        while (answer := await call.read()) is not grpc.aio.EOF:
            await call.write(discovery_pb2.DeltaDiscoveryRequest(type_url=answer.type_url, response_nonce=answer.nonce))
            now = time.time()
            for resource in answer.resources:
                self.missing.discard((answer.type_url, resource.name))
                if answer.type_url == ENDPOINTS:
                    self.updated_at[resource.name] = now
            first = (answer.type_url, "") in self.missing
            self.missing.discard((answer.type_url, ""))
            needed = {CLUSTER: ENDPOINTS, LISTENER: ROUTES}.get(answer.type_url)
            if first and needed is not None:
                await call.write(
                    discovery_pb2.DeltaDiscoveryRequest(type_url=needed, resource_names_subscribe=self.wanted)
                )
            if not self.missing:
                self.ready.set()


class Proxies:
    def __init__(self, mesh: Mesh, target: str, ca: bytes, token: str) -> None:
        credentials = grpc.ssl_channel_credentials(ca)
        self._all = [Proxy(mesh, number, target, credentials, token) for number in range(mesh.proxies)]

    async def connect(self, _: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        for proxy in self._all:
            proxy.start()
        everybody = asyncio.gather(*(proxy.ready.wait() for proxy in self._all))
        # A proxy's task ends only if the control plane rejected it for good.
        refused = [proxy.task for proxy in self._all if proxy.task is not None]
        awaited: list[asyncio.Future[Any]] = [everybody, *refused]
        ended, _late = await asyncio.wait(awaited, timeout=SETTLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if everybody not in ended:
            for task in ended:
                task.result()  # raises its exception
            late = sum(not proxy.ready.is_set() for proxy in self._all)
            raise TimeoutError(f"{late} of {len(self._all)} proxies have not got everything in {SETTLE_SECONDS} s")
        seconds = time.monotonic() - began
        return {
            "connected": len(self._all),
            "seconds": seconds,
            "reconnects": sum(proxy.reconnects for proxy in self._all),
        }

    async def until(self, order: dict[str, Any]) -> dict[str, Any]:
        """Responds, after a moment, once the endpoints of a cluster have reached everybody who calls it."""
        concerned = [proxy for proxy in self._all if order["cluster"] in proxy.wanted]
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            times = [proxy.updated_at.get(order["cluster"], 0.0) for proxy in concerned]
            if all(at > order["since"] for at in times):
                return {"updated": len(times), "last": max(times)}
            if time.monotonic() > deadline:
                late = sum(at <= order["since"] for at in times)
                raise TimeoutError(f"{late} of {len(times)} proxies have not heard of {order['cluster']}")
            await asyncio.sleep(0.01)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--proxies", type=int, required=True)
    parser.add_argument("--services", type=int, required=True)
    options = parser.parse_args()
    token = sys.stdin.readline().strip()
    proxies = Proxies(Mesh(options.proxies, options.services), options.target, options.ca.read_bytes(), token)
    actions: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
        "connect": proxies.connect,
        "await": proxies.until,
    }
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        print(json.dumps(await actions[order["do"]](order)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
