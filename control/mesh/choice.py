"""Which of the policies that select a proxy apply to it, and which resources something was made of. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# Without all of these, all callers are rejected, and so is plaintext.
PROTECTING = ("MeshTLS", "MeshTrafficPermission")

Key = tuple[str, str]


class Source(NamedTuple):
    """One version of a resource of the mesh."""

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
    """Which of the policies that select a proxy apply to it."""

    # (type, name) of policies that are left out.
    left_out: frozenset[Key] = frozenset()
    # Names of listeners and routes to which no MeshTrafficPermission and no MeshTLS applies: every caller is rejected.
    closed: frozenset[str] = frozenset()
    # Policies without effect (kuma.io/effect: shadow) are included too, to show what they would change.
    shadow: bool = False

    def __or__(self, other: Choice) -> Choice:
        return Choice(self.left_out | other.left_out, self.closed | other.closed, self.shadow or other.shadow)


IN_FORCE = Choice()
