"""What is known of one connected daemon, and which identities it must keep for a while."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Set
from dataclasses import dataclass, field, replace

from control.mesh.node_configuration import NodeConfiguration, NodeIdentity

# Interval between checks whether a node's certificate has expired.
LOOK_S = 1.0
# How long the identity of a deleted dataplane stays at its node: by then its callers have other endpoints, and its
# last connections have ended. No certificate is signed for it any more.
LEAVING_S = 10.0
# Bound for configurations without a response; a response to an older one no longer means anything.
UNANSWERED_MAX = 64


@dataclass(eq=False)
class NodeSession:
    """A connected daemon."""

    name: str
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    # Whether the meshes have changed since its configuration was made.
    is_stale: bool = True
    configuration: NodeConfiguration | None = None
    # The newest version that it applied, and the problems of the one it responded to last.
    applied_version: str = ""
    problems: tuple[str, ...] = ()
    # Configurations without a response yet, by version, the oldest first; and the last one with a response.
    sent: dict[str, NodeConfiguration] = field(default_factory=dict)
    answered: NodeConfiguration | None = None
    # The last that it applied without a problem.
    applied: NodeConfiguration | None = None
    # (SPIFFE id, socket) that its callers can use now; identities of the last configuration that it responded to.
    serving: frozenset[tuple[str, str]] = frozenset()
    # (mesh, SPIFFE id) of deleted dataplanes, and when the daemon is to forget them (monotonic).
    leaving: dict[tuple[str, str], float] = field(default_factory=dict)
    # Expiry of the certificate that opened the stream, seconds since 1970.
    ends_at: float | None = None
    # Why its token, or the one that its certificate was obtained with, is no longer valid.
    void: str | None = None

    def is_void(self, reason: str) -> None:
        """Ends the stream."""
        self.void = reason
        self.wake.set()

    def look_again(self) -> None:
        self.is_stale = True
        self.wake.set()


async def woken(session: NodeSession) -> None:
    """Waits for news. The clock is checked every second, since it can be set. TimeoutError: the certificate expired."""
    while True:
        if session.ends_at is not None and time.time() >= session.ends_at:
            raise TimeoutError
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(session.wake.wait(), None if session.ends_at is None else LOOK_S)
            return


def leaving(session: NodeSession, wanted: NodeConfiguration, there: Set[tuple[str, str]]) -> list[NodeIdentity]:
    """Identities at the node whose dataplanes were deleted a moment ago."""
    before = session.configuration.identities if session.configuration is not None else ()
    kept, now = [], time.monotonic()
    for one in before:
        key = one.mesh, one.identity.spiffe_id
        if wanted.find(*key) is not None or any((one.mesh, name) in there for name in one.dataplanes):
            session.leaving.pop(key, None)
            continue
        if key not in session.leaving:
            session.leaving[key] = now + LEAVING_S
            asyncio.get_running_loop().call_later(LEAVING_S + 0.1, session.look_again)
        if now < session.leaving[key]:
            kept.append(replace(one, dataplanes=()))
    return kept


def usable(wanted: NodeConfiguration) -> frozenset[tuple[str, str]]:
    """(SPIFFE id, socket) pairs of a configuration that are fully served."""
    return frozenset(
        (one.identity.spiffe_id, socket)
        for one in wanted.identities
        for socket in (one.settings.socket, *one.former_sockets)
    )
