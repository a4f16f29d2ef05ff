"""Proxies that are connected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from control.mesh.choice import Made
from control.mesh.evidence import Claims
from control.model.resource import Resource
from control.xds.protocol.stream import Stream
from control.xds.snapshot import Snapshot

# Why a proxy may not be a dataplane (any more), by its token; None where it may.
Refusal = Callable[[Resource], str | None]


class Proxy:
    """Where the newest snapshot of a connected proxy waits until its stream takes it."""

    def __init__(
        self,
        mesh: str,
        name: str,
        refusal_of: Refusal = lambda _: None,
        token_ends_at: int | None = None,
        claims: Claims | None = None,
    ) -> None:
        """`token_ends_at`: seconds since 1970, of the token that it came with."""
        self.mesh, self.name, self.refusal_of = mesh, name, refusal_of
        self.token_ends_at = token_ends_at
        # Why its token counts no more.
        self.void: str | None = None
        self.connected_at = time.monotonic()
        # What it may be using of what it was offered.
        self.claims = claims or Claims()
        # Set by whoever has something for the stream: a request, a snapshot, the end.
        self.wake = asyncio.Event()
        self.snapshot: Snapshot | None = None
        # The end: there is no such dataplane any more, or the token does not fit what it has become.
        self.gone = False
        self.refusal: str | None = None
        self.stream: Stream | None = None
        # By type: what was sent last, and what each of it was made of (at most one answer of a type is on its way).
        self.sent: dict[str, Mapping[str, Made]] = {}

    def offer(self, snapshot: Snapshot | None, dataplane: Resource | None) -> None:
        """Both None: there is no such dataplane any more."""
        self.refusal = self.refusal_of(dataplane) if dataplane is not None else None
        if self.refusal is None:
            self.snapshot, self.gone = snapshot or self.snapshot, snapshot is None
            if snapshot is not None and snapshot.facts is not None:
                self.claims.offer(snapshot.facts)
        self.wake.set()

    def is_void(self, reason: str) -> None:
        """The end: its token counts no more."""
        self.void = reason
        self.wake.set()

    def settles(self) -> bool:
        """Whether it has just acknowledged all of its newest snapshot, and that is news to others."""
        newest = self.snapshot
        if newest is None or newest.facts is None or self.stream is None or self.claims.possible == [newest.facts]:
            return False
        return self.stream.has_taken(newest) and self.claims.settle(newest.facts)

    @property
    def has_offer(self) -> bool:
        return self.gone or self.refusal is not None or self.snapshot is not None
