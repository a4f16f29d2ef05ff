"""A control plane that serves nodes, without TLS, and nodes that speak with it by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control.reconcile.control_plane import ControlPlane
from control.servers.nodes import SERVICE, NodeServer
from control.tokens.tokens import Tokens
from offload.v1 import node_pb2, node_pb2_grpc
from tests.control.resources import MESH_WITH_IDENTITY
from tests.control.scene import Read

MESH = (
    MESH_WITH_IDENTITY
    + """---
type: MeshOffload
name: all
spec: {default: {keyType: rsa2048, batch: {maxQueue: 100}, software: Require, socket: /run/x.sock}}
"""
)


def dataplane(name: str, labels: str) -> str:
    spec = "{networking: {address: 10.0.0.1, inbound: [{port: 80, servicePort: 8080}]}}"
    return f"---\ntype: Dataplane\nname: {name}\nlabels: {{{labels}}}\nspec: {spec}\n"


CART = "kuma.io/workload: cart, offload.mesh/node: n1"
DATAPLANES = (
    dataplane("cart-1", CART + ', offload.mesh/uid: "101"')
    + dataplane("cart-2", CART + ', offload.mesh/uid: "102", offload.mesh/gid: "7"')
    + dataplane("web-1", 'kuma.io/workload: web, offload.mesh/node: n2, offload.mesh/uid: "103"')
)
CART_ID = "spiffe://default.default.mesh.local/workload/cart"
WEB_ID = "spiffe://default.default.mesh.local/workload/web"


def request(spiffe_id: str) -> bytes:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.DER
    )


class World:
    def __init__(self, control_plane: ControlPlane, tokens: Tokens, nodes: NodeServer, port: int, read: Read) -> None:
        self.control_plane, self.tokens, self.nodes, self.address, self.read = (
            control_plane,
            tokens,
            nodes,
            f"127.0.0.1:{port}",
            read,
        )
        self.channel = grpc.aio.insecure_channel(self.address)
        self.stub: Any = node_pb2_grpc.NodeServiceStub(self.channel)

    def token(self, name: str) -> list[tuple[str, str]]:
        """As metadata."""
        return [("authorization", f"Bearer {self.tokens.issue('node', 600, name=name)}")]

    def raw(self, name: str) -> Any:
        """A stream of the node whose messages are bytes."""
        return self.channel.stream_stream(f"/{SERVICE}/Connect")(metadata=self.token(name))

    async def join(self, name: str) -> Node:
        node = Node(self.stub.Connect(metadata=self.token(name)))
        await node.send(hello=node_pb2.Hello(daemon_version="1"))
        return node


class Node:
    def __init__(self, call: Any) -> None:
        self.call = call

    async def send(self, **message: Any) -> None:
        await self.call.write(node_pb2.NodeMessage(**message))

    async def read(self) -> Any:
        message = await asyncio.wait_for(self.call.read(), 20)
        assert message is not grpc.aio.EOF
        return getattr(message, message.WhichOneof("message"))

    async def apply(self, configuration: Any, *problems: str) -> None:
        await self.send(applied=node_pb2.Applied(version=configuration.version, problems=problems))

    async def certificate(self, spiffe_id: str, der: bytes, number: int = 1) -> Any:
        wanted = node_pb2.CertificateRequest(id=number, mesh="default", spiffe_id=spiffe_id, request=der)
        await self.send(certificate_request=wanted)
        return await self.read()
