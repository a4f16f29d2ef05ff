"""The connected proxies."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Set

from control.mesh.choice import Made
from control.mesh.evidence import Claims
from control.metrics import Metrics
from control.model.resource import Resource
from control.xds.protocol.states import Phase
from control.xds.protocol.stream import Stream
from control.xds.snapshot import Snapshot

# Why a proxy's token does not permit it to be a dataplane (any more); None if it does.
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
        """`token_ends_at`: expiry of the token that it connected with, seconds since 1970."""
        self.mesh, self.name, self.refusal_of = mesh, name, refusal_of
        self.token_ends_at = token_ends_at
        # Why its token is no longer valid.
        self.void: str | None = None
        self.connected_at = time.monotonic()
        # What it may be using of what it was offered.
        self.claims = claims or Claims()
        # Set by anything that concerns the stream: a request, a snapshot, the end.
        self.wake = asyncio.Event()
        self.snapshot: Snapshot | None = None
        # The stream must end: the dataplane no longer exists, or the token does not fit what it has become.
        self.gone = False
        self.refusal: str | None = None
        self.stream: Stream | None = None
        # By type: what was sent last, and what each resource was made of (at most one response per type is in flight).
        self.sent: dict[str, Mapping[str, Made]] = {}

    def offer(self, snapshot: Snapshot | None, dataplane: Resource | None) -> None:
        """If both are None, the dataplane no longer exists."""
        self.refusal = self.refusal_of(dataplane) if dataplane is not None else None
        if self.refusal is None:
            self.snapshot, self.gone = snapshot or self.snapshot, snapshot is None
            if snapshot is not None and snapshot.facts is not None:
                self.claims.offer(snapshot.facts)
        self.wake.set()

    def is_void(self, reason: str) -> None:
        """Ends the stream, since its token is no longer valid."""
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

    @property
    def has_everything(self) -> bool:
        """Whether it has acknowledged all that it was offered."""
        if self.stream is None or self.snapshot is None:
            return False
        asked = [one for one in self.stream.subscriptions.values() if one.is_asked]
        return bool(asked) and all(one.phase is Phase.SETTLED and not one.lags(self.snapshot) for one in asked)


class Proxies:
    """The connected proxies, by mesh; confined to the event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._by_mesh: dict[str, set[Proxy]] = defaultdict(set)

    def of(self, mesh: str) -> Set[Proxy]:
        return self._by_mesh[mesh]

    def named(self, mesh: str, name: str) -> list[Proxy]:
        """Several while a proxy restarts."""
        return [proxy for proxy in self._by_mesh[mesh] if proxy.name == name]

    def all(self) -> Iterator[Proxy]:
        return (proxy for connected in self._by_mesh.values() for proxy in connected)

    @property
    def meshes(self) -> list[str]:
        """The meshes that have any."""
        return [mesh for mesh, connected in self._by_mesh.items() if connected]

    def add(self, proxy: Proxy) -> None:
        self._by_mesh[proxy.mesh].add(proxy)
        self._count(proxy.mesh)

    def remove(self, proxy: Proxy) -> None:
        self._by_mesh[proxy.mesh].discard(proxy)
        self._count(proxy.mesh)

    def _count(self, mesh: str) -> None:
        self._metrics.proxies.labels(mesh).set(len(self._by_mesh[mesh]))
