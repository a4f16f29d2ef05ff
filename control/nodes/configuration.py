"""What a node's daemon should have: a pure function of the meshes and the node's name.

A dataplane is placed on a node by the label offload.mesh/node; offload.mesh/uid and offload.mesh/gid say as whom its
proxy runs, and so who may use its key.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from control.model.resource import Resource
from control.policies.meshoffload.generate import OffloadSettings
from control.xds.policies_of_proxy import ProxyPolicies
from control.xds.view import Identity, MeshView

NODE_LABEL = "offload.mesh/node"
UID_LABEL = "offload.mesh/uid"
GID_LABEL = "offload.mesh/gid"


@dataclass(frozen=True, order=True)
class Caller:
    """Who may use a key; None does not matter."""

    uid: int | None
    gid: int | None


@dataclass(frozen=True)
class NodeIdentity:
    mesh: str
    identity: Identity
    dataplanes: tuple[str, ...]
    callers: tuple[Caller, ...]
    settings: OffloadSettings
    # SHA-256 of the CA that signs for it, hexadecimal.
    issuer: str = ""


@dataclass(frozen=True)
class NodeConfiguration:
    identities: tuple[NodeIdentity, ...] = ()
    # (mesh, trust domain, DER certificates)
    trusted: tuple[tuple[str, str, tuple[bytes, ...]], ...] = ()
    # What could not be configured, in words.
    problems: tuple[str, ...] = field(default=(), compare=False)

    @property
    def version(self) -> str:
        return hashlib.sha256(repr((self.identities, self.trusted)).encode()).hexdigest()[:16]

    def find(self, mesh: str, spiffe_id: str) -> NodeIdentity | None:
        return next((i for i in self.identities if (i.mesh, i.identity.spiffe_id) == (mesh, spiffe_id)), None)


def node_of(dataplane: Resource) -> str | None:
    """The node whose daemon has to hold the dataplane's key."""
    return dataplane.labels.get(NODE_LABEL)


def configuration(
    views: Iterable[MeshView], node: str, issuers: Mapping[tuple[str, str], str] | None = None
) -> NodeConfiguration:
    """Only dataplanes in mode Offload, and only the trust of their meshes.

    `issuers`: the fingerprint of the CA of each (mesh, MeshIdentity).
    """
    identities: list[NodeIdentity] = []
    trusted: list[tuple[str, str, tuple[bytes, ...]]] = []
    problems: list[str] = []
    for view in views:
        found = [
            replace(wanted, issuer=(issuers or {}).get((view.mesh, wanted.identity.mesh_identity), ""))
            for wanted in _identities(view, node, problems)
        ]
        identities += found
        if found:
            trusted += [(view.mesh, domain, _certificates(pem)) for domain, pem in view.trust_bundles]
    return NodeConfiguration(tuple(identities), tuple(sorted(trusted)), tuple(problems))


def _identities(view: MeshView, node: str, problems: list[str]) -> list[NodeIdentity]:
    grouped: dict[str, list[tuple[Resource, Identity, OffloadSettings]]] = defaultdict(list)
    for dataplane in view.dataplanes:
        if node_of(dataplane) != node:
            continue
        settings, identity = ProxyPolicies(view, dataplane).offload, view.identity_of(dataplane)
        if settings.mode != "Offload":
            continue
        if identity is None:
            problems.append(f"{view.mesh}/{dataplane.name} is in mode Offload, but has no identity by any MeshIdentity")
            continue
        grouped[identity.spiffe_id].append((dataplane, identity, settings))
    return [_merged(view, spiffe_id, members, problems) for spiffe_id, members in sorted(grouped.items())]


def _merged(
    view: MeshView,
    spiffe_id: str,
    members: list[tuple[Resource, Identity, OffloadSettings]],
    problems: list[str],
) -> NodeIdentity:
    """Dataplanes with one SPIFFE id share one key; so they share its settings, those of the first by name."""
    dataplanes = [dataplane for dataplane, _, _ in members]
    _, identity, settings = members[0]
    if any(other != settings for _, _, other in members):
        first = dataplanes[0].name
        problems.append(f"{spiffe_id}: its dataplanes have different MeshOffload settings; those of {first} hold")
    callers: set[Caller] = set()
    for dataplane in dataplanes:
        caller = Caller(_number(dataplane, UID_LABEL, problems), _number(dataplane, GID_LABEL, problems))
        if caller == Caller(None, None):
            problems.append(f"{view.mesh}/{dataplane.name} has no label {UID_LABEL}: nobody may use its key for it")
        else:
            callers.add(caller)
    order = sorted(callers, key=lambda c: (-1 if c.uid is None else c.uid, -1 if c.gid is None else c.gid))
    return NodeIdentity(view.mesh, identity, tuple(d.name for d in dataplanes), tuple(order), settings)


def _number(dataplane: Resource, label: str, problems: list[str]) -> int | None:
    text = dataplane.labels.get(label)
    if text is None:
        return None
    if not text.isdigit() or int(text) >= 2**32 - 1:
        problems.append(f"{dataplane.mesh}/{dataplane.name}: the label {label} must be a number; got {text!r}")
        return None
    return int(text)


def _certificates(pem: str) -> tuple[bytes, ...]:
    return tuple(c.public_bytes(serialization.Encoding.DER) for c in x509.load_pem_x509_certificates(pem.encode()))
