"""A node's configuration as the message for its daemon."""

from __future__ import annotations

from typing import Any

from control.mesh.node_configuration import NodeConfiguration, NodeIdentity
from offload.v1 import node_pb2

_SOFTWARE = {
    "Allow": node_pb2.MeshIdentity.ALLOW,
    "Require": node_pb2.MeshIdentity.REQUIRE,
    "Forbid": node_pb2.MeshIdentity.FORBID,
}


def to_message(wanted: NodeConfiguration) -> Any:
    return node_pb2.Configuration(
        version=wanted.version,
        identities=[_identity(identity) for identity in wanted.identities],
        trusted_domains=[
            node_pb2.TrustedDomain(trust_domain=domain, authorities=authorities, mesh=mesh)
            for mesh, domain, authorities in wanted.trusted
        ],
    )


def _identity(wanted: NodeIdentity) -> Any:
    settings = wanted.settings
    return node_pb2.MeshIdentity(
        spiffe_id=wanted.identity.spiffe_id,
        mesh=wanted.mesh,
        dataplanes=wanted.dataplanes,
        selectors=[node_pb2.Selector(uid=caller.uid, gid=caller.gid) for caller in wanted.callers],
        key_type=settings.key_type,
        usage=settings.usage,
        max_wait_us=settings.max_wait_us,
        max_queue=settings.max_queue,
        software=_SOFTWARE[settings.software],
        socket=settings.socket,
        former_sockets=wanted.former_sockets,
        issuer=bytes.fromhex(wanted.issuer),
    )
