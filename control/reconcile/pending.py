"""What has to be looked at again: changes of the store, news of proxies and nodes, configurations that are due."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from control.reconcile.proxies import Proxy

# A deployment changes many resources one after the other; one push for all of them.
DEBOUNCE_S = 0.05
DEBOUNCE_MAX_S = 0.5


@dataclass
class Work:
    """What was marked since the last push."""

    # Meshes that the store has something new of.
    changed: set[str] = field(default_factory=set)
    # Meshes whose proxies or nodes have acknowledged something, or come or gone.
    moved: set[str] = field(default_factory=set)
    # Proxies whose configuration is to be made again: a certificate is to be renewed, or a policy to be left out.
    due: set[Proxy] = field(default_factory=set)
    # (mesh, dataplane) of proxies that have gone over to a node: their own keys are of no use any more.
    gone_over: set[tuple[str, str]] = field(default_factory=set)


class Pending:
    """Belongs to the event loop."""

    def __init__(self) -> None:
        self.work = Work()
        # Changes of each mesh that were made here: a view of an earlier number is not the newest.
        self.epochs: dict[str, int] = defaultdict(int)
        self._marked = asyncio.Event()

    def mark_changed(self, meshes: Iterable[str]) -> None:
        for mesh in meshes:
            self.work.changed.add(mesh)
            # A proxy that comes before the push reads anew.
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
        """For those who watch every push; no mesh has anything new."""
        self._marked.set()

    async def wait(self) -> None:
        await self._marked.wait()

    async def debounce(self, began: float) -> None:
        """Until there is a moment without news; `began`: when the first came (time.perf_counter)."""
        while self._marked.is_set() and time.perf_counter() - began < DEBOUNCE_MAX_S:
            self._marked.clear()
            await asyncio.sleep(DEBOUNCE_S)
        self._marked.clear()

    def take(self) -> Work:
        work, self.work = self.work, Work()
        return work
