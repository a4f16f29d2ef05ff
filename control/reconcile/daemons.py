"""What the control plane asks about the daemons of nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from control.mesh.facts import Facts, NodeKnown
from control.mesh.view import MeshView
from control.model.resource import Resource


class Nodes(Protocol):
    """The service that daemons are connected to."""

    async def has_bundle(self, node: str) -> bool:
        """Whether the node has applied its configuration."""

    def known(self, mesh: str) -> Mapping[str, NodeKnown]:
        """What the connected nodes report that they have of the mesh."""

    def word(self, node: str, spiffe_id: str, socket: str) -> str | None:
        """Why the node cannot sign for the identity now, in its own words; None if it can."""


class Daemons:
    """Daemons of all nodes; there are none until `ask` names the service that they are connected to."""

    def __init__(self) -> None:
        self._nodes: Nodes | None = None

    def ask(self, nodes: Nodes) -> None:
        """Sets whom to ask before each step of a rotation, and about what daemons hold."""
        self._nodes = nodes

    async def has_bundle(self, node: str) -> bool:
        return self._nodes is not None and await self._nodes.has_bundle(node)

    def known(self, mesh: str) -> Mapping[str, NodeKnown]:
        return self._nodes.known(mesh) if self._nodes is not None else {}

    def word(self, facts: Facts) -> str | None:
        """Why the daemon that has a proxy's key cannot sign for it now, in its own words; None if it can."""
        place, identity = facts.place, facts.identity
        if place is None or identity is None or not place.node or self._nodes is None:
            return None
        return self._nodes.word(place.node, identity.spiffe_id, place.socket)


def node_with_key(view: MeshView, dataplane: Resource) -> str | None:
    """The node with the dataplane's key; None if the key is in the proxy itself."""
    given = view.given(dataplane)
    return given.place.node if given is not None and given.place is not None else None
