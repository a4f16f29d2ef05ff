"""What a node's daemon should have: a pure function of the meshes and the node's name.

A dataplane is placed on a node by the label offload.mesh/node; offload.mesh/uid and offload.mesh/gid name the user that
its proxy runs as, and so who may use its key.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.view import MeshView
from control.model.identity import Identity
from control.model.placement import GID_LABEL, UID_LABEL, node_of
from control.model.resource import Resource
from control.policies.meshoffload.generate import OffloadSettings


@dataclass(frozen=True, order=True)
class Caller:
    """Who may use a key; None means any."""

    uid: int | None
    gid: int | None


@dataclass(frozen=True)
class NodeIdentity:
    mesh: str
    identity: Identity
    dataplanes: tuple[str, ...]
    callers: tuple[Caller, ...]
    settings: OffloadSettings
    # Sockets, besides that of the settings, through which dataplanes still reach the daemon.
    former_sockets: tuple[str, ...] = ()
    # SHA-256 of the issuing CA, hexadecimal.
    issuer: str = ""


@dataclass(frozen=True)
class NodeConfiguration:
    identities: tuple[NodeIdentity, ...] = ()
    # (mesh, trust domain, DER certificates)
    trusted: tuple[tuple[str, str, tuple[bytes, ...]], ...] = ()
    # What could not be configured, for people.
    problems: tuple[str, ...] = field(default=(), compare=False)

    @property
    def version(self) -> str:
        return hashlib.sha256(repr((self.identities, self.trusted)).encode()).hexdigest()[:16]

    def find(self, mesh: str, spiffe_id: str) -> NodeIdentity | None:
        return next((i for i in self.identities if (i.mesh, i.identity.spiffe_id) == (mesh, spiffe_id)), None)


def configuration(
    views: Iterable[MeshView], node: str, issuers: Mapping[tuple[str, str], str] | None = None
) -> NodeConfiguration:
    """Includes only dataplanes in mode Offload, and only the trust of their meshes.

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


@dataclass(frozen=True)
class _Held:
    """A dataplane whose proxy uses an identity at the node, or is going to, through this socket."""

    dataplane: Resource
    identity: Identity
    settings: OffloadSettings
    socket: str


def _identities(view: MeshView, node: str, problems: list[str]) -> list[NodeIdentity]:
    grouped: dict[str, list[_Held]] = defaultdict(list)
    for dataplane in view.dataplanes:
        for held in _held(view, dataplane, node, problems):
            grouped[held.identity.spiffe_id].append(held)
    return [_merged(view, spiffe_id, members, problems) for spiffe_id, members in sorted(grouped.items())]


def _held(view: MeshView, dataplane: Resource, node: str, problems: list[str]) -> Iterator[_Held]:
    """The plan decides, which knows what proxies still use; without one, what is wanted. The newest comes first."""
    settings = ProxyPolicies(view, dataplane).wanted_offload
    if view.plan is not None:
        for identity, place in view.plan.held.get(dataplane.name, ()):
            if place.node == node:
                yield _Held(dataplane, identity, settings, place.socket)
    if node_of(dataplane) != node or settings.mode != "Offload":
        return
    wanted = view.wanted_identity(dataplane)
    if wanted is None:
        problems.append(f"{view.mesh}/{dataplane.name} is in mode Offload, but no MeshIdentity gives it an identity")
    elif view.plan is None:
        yield _Held(dataplane, wanted, settings, settings.socket)


def _merged(
    view: MeshView,
    spiffe_id: str,
    members: list[_Held],
    problems: list[str],
) -> NodeIdentity:
    """Dataplanes with the same SPIFFE id share one key, and its settings: those of the first by name."""
    dataplanes = list({held.dataplane.name: held.dataplane for held in members}.values())
    first = members[0]
    settings = replace(first.settings, mode="Offload", socket=first.socket)
    if any(replace(held.settings, mode="Offload") != replace(first.settings, mode="Offload") for held in members):
        first_name = dataplanes[0].name
        problems.append(f"{spiffe_id}: its dataplanes have different MeshOffload settings; those of {first_name} apply")
    callers: set[Caller] = set()
    for dataplane in dataplanes:
        caller = Caller(_number(dataplane, UID_LABEL, problems), _number(dataplane, GID_LABEL, problems))
        if caller == Caller(None, None):
            problems.append(f"{view.mesh}/{dataplane.name} has no label {UID_LABEL}: nobody may use its key")
        else:
            callers.add(caller)
    order = sorted(callers, key=lambda c: (-1 if c.uid is None else c.uid, -1 if c.gid is None else c.gid))
    former = tuple(sorted({held.socket for held in members} - {first.socket}))
    names = tuple(dataplane.name for dataplane in dataplanes)
    return NodeIdentity(view.mesh, first.identity, names, tuple(order), settings, former)


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
