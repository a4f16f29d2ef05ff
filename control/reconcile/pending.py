"""What must be looked at again: changes of the store, news from proxies and nodes, configurations that are due."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from control.reconcile.proxies import Proxy

# A deployment changes many resources in succession; they share one push.
DEBOUNCE_S = 0.05
DEBOUNCE_MAX_S = 0.5


@dataclass
class Work:
    """What was marked since the last push."""

    # Meshes with changes in the store.
    changed: set[str] = field(default_factory=set)
    # Meshes whose proxies or nodes have acknowledged something, connected or disconnected.
    moved: set[str] = field(default_factory=set)
    # Proxies whose configuration must be made again, to renew a certificate or to leave a policy out.
    due: set[Proxy] = field(default_factory=set)
    # (mesh, dataplane) of proxies that have moved to a node: their own keys are no longer needed.
    gone_over: set[tuple[str, str]] = field(default_factory=set)


class Pending:
    """Confined to the event loop."""

    def __init__(self) -> None:
        self.work = Work()
        # Number of local changes of each mesh: a view with a smaller number is outdated.
        self.epochs: dict[str, int] = defaultdict(int)
        self._marked = asyncio.Event()

    def mark_changed(self, meshes: Iterable[str]) -> None:
        for mesh in meshes:
            self.work.changed.add(mesh)
            # A proxy that connects before the push reads the mesh again.
            self.epochs[mesh] += 1
            self._marked.set()

    def mark_moved(self, meshes: Iterable[str]) -> None:
        self.work.moved.update(meshes)
        self._marked.set()

    def mark_due(self, proxies: Iterable[Proxy]) -> None:
        self.work.due.update(proxies)
        self._marked.set()

    def mark_settled(self, proxy: Proxy) -> None:
        """The proxy has acknowledged all that it was given."""
        if proxy.claims.possible[-1].place is not None:
            self.work.gone_over.add((proxy.mesh, proxy.name))
        self.mark_moved([proxy.mesh])

    def mark(self) -> None:
        """Wakes those who watch every push, although no mesh has anything new."""
        self._marked.set()

    async def wait(self) -> None:
        await self._marked.wait()

    async def debounce(self, began: float) -> None:
        """Waits until a moment without news; `began`: when the first news came (time.perf_counter)."""
        while self._marked.is_set() and time.perf_counter() - began < DEBOUNCE_MAX_S:
            self._marked.clear()
            await asyncio.sleep(DEBOUNCE_S)
        self._marked.clear()

    def take(self) -> Work:
        work, self.work = self.work, Work()
        return work
