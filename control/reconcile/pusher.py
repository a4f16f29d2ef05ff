"""Brings every connected proxy its new snapshot after a change.

Changes are collected for a moment (debounced), then each changed mesh is read once and the snapshots of its connected
proxies are built, a bounded number at a time and in random order, off the event loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import structlog

from control.mesh.transitions import OFFLOAD
from control.mesh.view import MeshView
from control.reconcile.proxies import Proxy
from control.reconcile.snapshots import Snapshots
from control.reconcile.state import State
from control.reconcile.views import Views
from control.store.errors import StoreError

log = structlog.get_logger(__name__)

# Snapshots that a thread builds before it hands them over: the handover costs half as much as building one.
BUILDS_IN_A_ROW = 16
# Pause before a mesh that could not be read is retried.
RETRY_S = 2.0


class Pusher:
    """Confined to the event loop."""

    def __init__(self, state: State, views: Views, snapshots: Snapshots) -> None:
        self._identities, self._proxies, self._daemons = state.identities, state.proxies, state.daemons
        self._pending, self._metrics = state.pending, state.metrics
        self._views, self._snapshots = views, snapshots
        self._watchers: list[Callable[[], None]] = []

    def watch(self, changed: Callable[[], None]) -> None:
        """`changed` is called after every push."""
        self._watchers.append(changed)

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self._pending.wait()
            began = time.perf_counter()
            await self._pending.debounce(began)
            work = self._pending.take()
            for mesh in work.changed | work.moved:
                await self._push(mesh, fresh=mesh in work.changed)
                self._count_waiting(mesh)
            await self._offer_again([proxy for proxy in work.due if proxy.mesh not in work.changed])
            await self._forget_keys(work.gone_over)
            for changed in self._watchers:
                changed()
            self._metrics.push.observe(time.perf_counter() - began)

    async def _push(self, mesh: str, fresh: bool) -> None:
        """`fresh`: the store has something new; else there is news from proxies, which may change nothing for them."""
        if not self._proxies.of(mesh):
            return  # a proxy that connects reads the mesh anew
        try:
            view = await self._views.view(mesh, fresh, moved=True)
        except StoreError as error:
            # Proxies keep what they have; the change is not forgotten.
            log.error("cannot read a change; retrying", mesh=mesh, error=str(error))
            self._pending.work.changed.add(mesh)
            await asyncio.sleep(RETRY_S)
            self._pending.mark()
            return
        except Exception:  # nor may one mesh keep the others from being pushed
            log.exception("cannot read a mesh", mesh=mesh)
            return
        if fresh or self._views.offered.get(mesh) is not view:
            self._views.offered[mesh] = view
            await self._offer(view, self._proxies.of(mesh))

    async def _offer(self, view: MeshView, proxies_of_it: Iterable[Proxy]) -> None:
        """Offers all of them new snapshots, in random order, so that none is always the last."""
        waiting = list(proxies_of_it)
        random.shuffle(waiting)
        some = [waiting[at : at + BUILDS_IN_A_ROW] for at in range(0, len(waiting), BUILDS_IN_A_ROW)]
        await asyncio.gather(*(self._offer_some(view, batch) for batch in some))

    async def _offer_some(self, view: MeshView, some: Sequence[Proxy]) -> None:
        for proxy, snapshot in await self._snapshots.of_all(view, some):
            proxy.offer(snapshot, view.get("Dataplane", proxy.name))

    async def _offer_again(self, due: Sequence[Proxy]) -> None:
        by_mesh: dict[str, list[Proxy]] = defaultdict(list)
        for proxy in due:
            by_mesh[proxy.mesh].append(proxy)
        for mesh, some in by_mesh.items():
            try:
                await self._offer(await self._views.view(mesh), some)
            except StoreError as error:
                log.error("cannot build configurations; retrying", mesh=mesh, error=str(error))

    async def _forget_keys(self, gone_over: Iterable[tuple[str, str]]) -> None:
        """Forgets the keys of proxies that have moved to the offload."""
        for mesh, name in gone_over:
            try:
                if await asyncio.to_thread(self._identities.keeps, mesh, name):
                    await asyncio.to_thread(self._identities.forget, mesh, name)
                    log.info("a proxy has switched to the offload", mesh=mesh, dataplane=name)
            except StoreError as error:
                log.error("cannot delete the key of a proxy", mesh=mesh, dataplane=name, error=str(error))

    def _count_waiting(self, mesh: str) -> None:
        view = self._views.current(mesh)
        if view is None or view.plan is None:
            return
        connected = {proxy.name for proxy in self._proxies.of(mesh)}
        waiting = {wait.who for wait in view.plan.waits if wait.step == OFFLOAD}
        self._metrics.waiting.labels(mesh).set(len(waiting & connected))
        self._metrics.unserved.labels(mesh).set(
            sum(
                facts.place is not None and name in connected and self._daemons.word(facts) is not None
                for name, facts in view.plan.facts.items()
            )
        )
