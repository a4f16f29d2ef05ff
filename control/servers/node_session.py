"""What is known of one connected daemon, and what it is to keep for a while."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Set
from dataclasses import dataclass, field, replace

from control.mesh.node_configuration import NodeConfiguration, NodeIdentity

# So often is it asked whether a node's certificate has ended.
LOOK_S = 1.0
# The identity of a deleted dataplane stays at its node for so long: until then those who call it have other endpoints,
# and its last connections have ended. No certificate is signed for it any more.
LEAVING_S = 10.0
# Configurations that a daemon has not answered; its answer to an older one says nothing any more.
UNANSWERED_MAX = 64


@dataclass(eq=False)
class NodeSession:
    """A connected daemon."""

    name: str
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    # Whether the meshes have changed since its configuration was made.
    is_stale: bool = True
    configuration: NodeConfiguration | None = None
    # The newest version that it took, and what it could not do of the one it answered last.
    applied_version: str = ""
    problems: tuple[str, ...] = ()
    # Configurations that it has not answered yet, by version, the oldest first; and the last that it answered.
    sent: dict[str, NodeConfiguration] = field(default_factory=dict)
    answered: NodeConfiguration | None = None
    # The last that it took, without a problem.
    applied: NodeConfiguration | None = None
    # (SPIFFE id, socket) that its callers can use now; of identities of the last configuration that it answered.
    serving: frozenset[tuple[str, str]] = frozenset()
    # (mesh, SPIFFE id) of deleted dataplanes, and when the daemon is to forget them (monotonic).
    leaving: dict[tuple[str, str], float] = field(default_factory=dict)
    # Seconds since 1970: when the certificate that opened the stream ends.
    ends_at: float | None = None
    # Why its token, or the one that its certificate came of, counts no more.
    void: str | None = None

    def is_void(self, reason: str) -> None:
        """The end of the stream."""
        self.void = reason
        self.wake.set()

    def look_again(self) -> None:
        self.is_stale = True
        self.wake.set()


async def woken(session: NodeSession) -> None:
    """The clock is looked at every second, since it can be set. TimeoutError when the node's certificate has ended."""
    while True:
        if session.ends_at is not None and time.time() >= session.ends_at:
            raise TimeoutError
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(session.wake.wait(), None if session.ends_at is None else LOOK_S)
            return


def leaving(session: NodeSession, wanted: NodeConfiguration, there: Set[tuple[str, str]]) -> list[NodeIdentity]:
    """Identities that the node has of dataplanes that were deleted a moment ago."""
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
    """(SPIFFE id, socket) of a configuration that is served in full."""
    return frozenset(
        (one.identity.spiffe_id, socket)
        for one in wanted.identities
        for socket in (one.settings.socket, *one.former_sockets)
    )
