"""The state that the parts of the control plane share."""

from __future__ import annotations

from dataclasses import dataclass

from control.ca.identities import Identities
from control.metrics import Metrics
from control.reconcile.daemons import Daemons
from control.reconcile.left_out import LeftOut
from control.reconcile.pending import Pending
from control.reconcile.plans import Plans
from control.reconcile.proxies import Proxies
from control.reconcile.quarantines import Quarantines
from control.store.store import Store


@dataclass(frozen=True)
class State:
    """Confined to one event loop; the store is used from threads."""

    store: Store
    metrics: Metrics
    identities: Identities
    left_out: LeftOut
    plans: Plans
    quarantines: Quarantines
    daemons: Daemons
    proxies: Proxies
    pending: Pending
