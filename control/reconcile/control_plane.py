"""The control plane at work: changes come in, every connected proxy gets its new snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from control.ca.identities import Identities
from control.mesh.evidence import OFFLINE_AFTER_S
from control.metrics import Metrics
from control.reconcile.changes import Changes
from control.reconcile.connections import Connections
from control.reconcile.daemons import Daemons
from control.reconcile.left_out import LeftOut
from control.reconcile.pending import Pending
from control.reconcile.plans import Plans
from control.reconcile.poll import Poll
from control.reconcile.proxies import Proxies
from control.reconcile.pusher import Pusher
from control.reconcile.quarantines import Quarantines
from control.reconcile.rotation_gate import RotationGate
from control.reconcile.snapshots import Snapshots
from control.reconcile.state import State
from control.reconcile.views import Views
from control.store.store import Store


class ControlPlane:
    """Its parts, put together. They run in one event loop; the store is used from threads."""

    def __init__(
        self,
        store: Store,
        zone: str = "default",
        metrics: Metrics | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        offline_after: float = OFFLINE_AFTER_S,
    ) -> None:
        """`clock`: the time that certificates are checked against. `offline_after`: seconds, see mesh/evidence.py."""
        metrics = metrics or Metrics()
        self.state = state = State(
            store,
            metrics,
            Identities(store, zone, clock),
            LeftOut(metrics),
            Plans(store, metrics, offline_after),
            Quarantines(metrics),
            Daemons(),
            Proxies(metrics),
            Pending(),
        )
        self.views, self.snapshots = Views(state, zone), Snapshots(state)
        parts = state, self.views, self.snapshots
        self.changes, self.connections = Changes(*parts), Connections(*parts)
        self.rotations, self.pusher = RotationGate(*parts), Pusher(*parts)
        self._poll = Poll(*parts, self.changes)

    async def run(self) -> None:
        """Runs until cancelled."""
        await asyncio.to_thread(self.changes.publish_all)
        poll = asyncio.create_task(self._poll.run())
        try:
            await self.pusher.run()
        finally:
            poll.cancel()
            self.snapshots.close()
