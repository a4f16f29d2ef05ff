"""Which of the policies that select a proxy count for it, and which resources something was made of. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# Without all of these nobody is let in, and no plaintext.
PROTECTING = ("MeshTLS", "MeshTrafficPermission")

Key = tuple[str, str]


class Source(NamedTuple):
    """A resource of the mesh, in one version."""

    type: str
    name: str
    version: str

    @property
    def key(self) -> Key:
        return (self.type, self.name)

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


Made = frozenset[Source]
NOTHING: Made = frozenset()


@dataclass(frozen=True)
class Choice:
    """Which of the policies that select a proxy count."""

    # (type, name) of those that do not.
    left_out: frozenset[Key] = frozenset()
    # Names of listeners and routes where no MeshTrafficPermission and no MeshTLS counts: nobody is let in.
    closed: frozenset[str] = frozenset()
    # Those without effect (kuma.io/effect: shadow) count too, to see what they would change.
    shadow: bool = False

    def __or__(self, other: Choice) -> Choice:
        return Choice(self.left_out | other.left_out, self.closed | other.closed, self.shadow or other.shadow)


IN_FORCE = Choice()
