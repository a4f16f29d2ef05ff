"""A control plane in this process and hand-driven clients of it: for stream scripts over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2

from control.model.resource import Resource
from control.reconcile.control_plane import ControlPlane
from control.tokens.tokens import Tokens
from control.xds.encoding.encode import ENDPOINTS, MESSAGES

Read = Callable[[str], list[Resource]]

MESH = """
type: Mesh
name: default
---
type: Dataplane
name: web-1
labels: {app: web, kuma.io/workload: web}
spec:
  networking:
    address: 10.0.0.1
    inbound: [{port: 8080, servicePort: 18080, protocol: http}]
    outbound: [{port: 3000, backendRef: {kind: MeshService, name: backend, port: 80}}]
---
type: Dataplane
name: backend-1
labels: {app: backend, kuma.io/workload: backend}
spec: {networking: {address: 10.0.0.2, inbound: [{port: 8080, servicePort: 18080, protocol: http}]}}
---
type: MeshService
name: backend
spec:
  selector: {dataplaneLabels: {matchLabels: {app: backend}}}
  ports: [{port: 80, targetPort: 8080, appProtocol: http}]
"""
IDENTITY = """
type: MeshIdentity
name: identity
spec:
  selector: {dataplane: {matchLabels: {}}}
  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}
"""
# It has no proxy, so that it is an endpoint at once; others are when their proxies have acknowledged their listeners.
BACKEND_2 = """
type: Dataplane
name: backend-2
labels: {app: backend, kuma.io/workload: backend, offload.mesh/proxy: none}
spec: {networking: {address: 10.0.0.3, inbound: [{port: 8080, servicePort: 18080, protocol: http}]}}
"""
NAME = "kri_msvc_default___backend_80"


class World:
    def __init__(self, control_plane: ControlPlane, tokens: Tokens, stub: Any, read: Read) -> None:
        self.control_plane, self.tokens, self.stub, self.read = control_plane, tokens, stub, read

    async def apply(self, text: str) -> None:
        await self.control_plane.changes.put_all(self.read(text))

    def token(self, **claims: Any) -> str:
        return self.tokens.issue("dataplane", 600, claims.pop("mesh", "default"), **claims)

    def stream(self, token: str | None = None, node: str = "default.web-1", delta: bool = False) -> Client:
        metadata = [("authorization", f"Bearer {token or self.token()}")] if token != "" else []
        method = self.stub.DeltaAggregatedResources if delta else self.stub.StreamAggregatedResources
        return Client(method(metadata=metadata), node, delta)


class Client:
    """One stream. `ask` sends, `read` takes the next answer and `ack` acknowledges it."""

    def __init__(self, call: Any, node: str, delta: bool) -> None:
        self.call, self.node, self.delta = call, node, delta
        self._reading: asyncio.Task[Any] | None = None

    async def ask(self, type_url: str, *names: str, **more: Any) -> None:
        kind = discovery_pb2.DeltaDiscoveryRequest if self.delta else discovery_pb2.DiscoveryRequest
        named = {"resource_names_subscribe" if self.delta else "resource_names": names}
        await self.call.write(kind(type_url=type_url, node={"id": self.node}, **named, **more))

    async def is_quiet(self) -> bool:
        """Whether nothing comes for a while. What is read ahead is the next answer all the same."""
        self._reading = self._reading or asyncio.create_task(self.call.read())
        done, _ = await asyncio.wait([self._reading], timeout=0.4)
        return not done

    async def read(self) -> Any:
        reading, self._reading = self._reading or self.call.read(), None
        answer = await asyncio.wait_for(reading, 20)
        assert answer is not grpc.aio.EOF, await self.call.details()
        return answer

    async def ack(self, answer: Any, *names: str, error: str = "") -> None:
        more: dict[str, Any] = {"response_nonce": answer.nonce}
        if error:
            more["error_detail"] = status_pb2.Status(code=3, message=error)
        elif not self.delta:
            more["version_info"] = answer.version_info
        await self.ask(answer.type_url, *(() if self.delta else names), **more)

    async def get(self, type_url: str, *names: str) -> Any:
        await self.ask(type_url, *names)
        answer = await self.read()
        assert answer.type_url == type_url
        await self.ack(answer, *names)
        return answer

    async def end(self) -> tuple[grpc.StatusCode, str]:
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await asyncio.wait_for(self.call.read(), 20) is not grpc.aio.EOF:
                pass
        return await self.call.code(), await self.call.details()


def names_of(answer: Any) -> list[str]:
    found = []
    for resource in answer.resources:
        message = MESSAGES[answer.type_url]()
        assert resource.Unpack(message)
        found.append(message.cluster_name if answer.type_url == ENDPOINTS else message.name)
    return found


def addresses(resource: Any) -> list[str]:
    message = MESSAGES[ENDPOINTS]()
    assert resource.Unpack(message)
    endpoints = [endpoint for locality in message.endpoints for endpoint in locality.lb_endpoints]
    return [endpoint.endpoint.address.socket_address.address for endpoint in endpoints]
