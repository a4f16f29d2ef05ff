"""Polls for what nobody reports: changes of the store by others, certificates that are due, long absent proxies."""

from __future__ import annotations

import asyncio
import random
import time

import structlog

from control.reconcile.changes import Changes
from control.reconcile.orphans import OrphanedTrust
from control.reconcile.snapshots import Snapshots
from control.reconcile.state import State
from control.reconcile.views import Views
from control.store.errors import StoreError

log = structlog.get_logger(__name__)

# Interval of the search for changes by others (a restore, another replica).
POLL_S = 2.0
# Interval of the search for certificates that are due: clocks can be set, and machines can sleep.
LOOK_S = 1.0
# Interval between small test writes that detect a full or locked disk; every poll while they fail.
PROBE_S = 10.0


class Poll:
    def __init__(self, state: State, views: Views, snapshots: Snapshots, changes: Changes) -> None:
        self._store, self._identities, self._plans = state.store, state.identities, state.plans
        self._proxies, self._left_out = state.proxies, state.left_out
        self._pending, self._metrics = state.pending, state.metrics
        self._views, self._snapshots, self._changes = views, snapshots, changes
        self._orphaned = OrphanedTrust(state)
        self._generation = -1
        self._store_works, self._probe_at = True, 0.0

    async def run(self) -> None:
        """Runs until cancelled."""
        look_at = 0.0
        while True:
            try:
                if time.monotonic() >= look_at:
                    await self._look()
                    look_at = time.monotonic() + POLL_S * random.uniform(0.8, 1.2)  # noqa: S311 (no secret)
                await self._look_at_certificates()
                self._plans.tell()
                late = self._plans.due()
                if late:
                    self._pending.mark_moved(late)
            except Exception:  # one failed look must not be the last
                log.exception("checking for changes failed; retrying")
            await asyncio.sleep(min(LOOK_S, POLL_S))

    async def _look(self) -> None:
        """Looks for changes by others, and whether the store accepts changes at all."""
        try:
            if self._store.problem is not None or time.monotonic() >= self._probe_at:
                self._probe_at = time.monotonic() + PROBE_S
                await asyncio.to_thread(self._store.probe)
            # Read last, since a probe can wait: a local change in the meantime would look like somebody else's.
            generation = await asyncio.to_thread(self._store.generation)
            if generation != self._generation:
                await self._notice(generation)
        except StoreError as error:
            if self._store_works:
                log.error("the store is unavailable", error=str(error))
            self._store_works = False
        else:
            if not self._store_works:
                log.info("the store is available again")
            self._store_works = True
            self._generation = generation
            self._metrics.generation.set(generation)
        self._metrics.store_up.set(self._store_works)

    async def _notice(self, generation: int) -> None:
        """Handles changes by others; local ones have been read already."""
        self._left_out.show("", await asyncio.to_thread(self._store.unreadable, "Mesh"))
        if self._generation >= 0:  # else it has just been done
            await asyncio.to_thread(self._changes.publish_all)
        connected = self._proxies.meshes
        for mesh in self._views.forget_others(connected):
            self._snapshots.forget(mesh)
        for mesh in connected:
            if self._views.generation(mesh) == generation:
                continue
            try:
                is_new = await self._views.view(mesh, fresh=True) is not self._views.offered.get(mesh)
            except Exception:  # noqa: BLE001
                self._pending.mark_changed([mesh])  # the push reports the error, and retries
            else:
                if is_new:  # unless a push in progress offers it
                    self._pending.mark_moved([mesh])
        # Nodes look at meshes without proxies, too.
        self._pending.mark()

    async def _look_at_certificates(self) -> None:
        """Retries failed CAs, and gives proxies whose certificate is due a snapshot with a new one."""
        try:
            self._pending.mark_changed(await asyncio.to_thread(self._identities.authorities.retry))
        except StoreError:
            return  # _look reports it
        for view in self._views.all_current():
            await self._orphaned.retire(view)
        self._metrics.show_failing(f"{mesh}/{name}" for mesh, name in self._identities.authorities.troubles())
        due = [proxy for proxy in self._proxies.all() if self._identities.is_due(proxy.mesh, proxy.name)]
        if due:
            self._pending.mark_due(due)
