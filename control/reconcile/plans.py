"""The plans of all meshes: evidence in, a view with the next plan out; what must outlive this process is stored."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

import structlog

from control.mesh import transitions
from control.mesh.evidence import OFFLINE_AFTER_S, Claims, MeshEvidence
from control.mesh.facts import Evidence, Known, NodeKnown, Plan, Presence, Record, Wait, Wanted
from control.mesh.view import MeshView
from control.mesh.wanted import Wants
from control.metrics import Metrics
from control.store.store import Store

log = structlog.get_logger(__name__)

# Steps that wait for longer are logged; most wait for milliseconds.
LOGGED_AFTER_S = 5.0
# Number of these that are logged one by one; a thousand late proxies are summarized in one more line.
LOGGED_AT_ONCE = 10


def record_name(mesh: str) -> str:
    return f"mesh/{mesh}/transitions"


class Plans:
    """Confined to the event loop; plans are made on threads, one at a time per mesh (views.py ensures that)."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        offline_after: float = OFFLINE_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._metrics, self._offline_after, self._now = store, metrics, offline_after, clock
        self._evidence: dict[str, MeshEvidence] = {}
        self._records: dict[str, Record] = {}
        self._wants: dict[str, Wants] = defaultdict(Wants)
        self._presence: dict[str, Mapping[str, Known]] = {}
        # Since when each step has been waiting; and which of them have been logged.
        self._since: dict[str, dict[Wait, float]] = {}
        self._logged: dict[str, set[Wait]] = {}

    # --- evidence -----------------------------------------------------------------------------------------------------

    def connect(self, mesh: str, name: str) -> Claims:
        """To be called after a view of the mesh was given."""
        return self._of(mesh).connect(name, self._now())

    def disconnect(self, mesh: str, name: str, claims: Claims) -> None:
        self._of(mesh).disconnect(name, claims, self._now())

    def _of(self, mesh: str) -> MeshEvidence:
        if mesh not in self._evidence:
            self._evidence[mesh] = MeshEvidence(self._records.get(mesh, Record()), self._offline_after)
        return self._evidence[mesh]

    def forget(self, mesh: str, name: str) -> None:
        self._of(mesh).forget(name)

    def forget_mesh(self, mesh: str) -> None:
        """Also forgets its stored plan; to be called from a thread."""
        self._records.pop(mesh, None)
        self._wants.pop(mesh, None)
        self._evidence.pop(mesh, None)
        self._presence.pop(mesh, None)
        self._since.pop(mesh, None)
        self._logged.pop(mesh, None)
        self._store.delete_secret(record_name(mesh))

    def due(self) -> list[str]:
        """Meshes in which some proxy's absence has just reached a limit."""
        now = self._now()
        return [mesh for mesh, evidence in self._evidence.items() if evidence.next_change <= now]

    def presence_of(self, mesh: str, name: str) -> Presence:
        """The presence according to the last plan."""
        known = self._presence.get(mesh, {}).get(name)
        return known.presence if known is not None else Presence.NEW

    def may_show(self, mesh: str, mesh_identity: str) -> bool:
        """Whether any proxy may be using an identity of this MeshIdentity, according to the last plan."""
        return any(
            facts.identity is not None and facts.identity.mesh_identity == mesh_identity
            for known in self._presence.get(mesh, {}).values()
            if known.presence is not Presence.LOST
            for facts in known.possible
        )

    # --- plans --------------------------------------------------------------------------------------------------------

    async def given(self, wanted: MeshView, before: MeshView | None, nodes: Mapping[str, NodeKnown]) -> MeshView:
        """The view with the current plan; `before` itself if nothing has changed. Raises StoreError."""
        mesh = wanted.mesh
        if mesh not in self._records:
            self._records[mesh] = await asyncio.to_thread(self._load, mesh)
        evidence = self._of(mesh)
        evidence.begin((dataplane.name for dataplane in wanted.dataplanes), self._now())
        known = self._presence[mesh] = evidence.known(wanted.dataplanes, self._now())
        self._metrics.offline.labels(mesh).set(sum(one.presence is Presence.OFFLINE for one in known.values()))
        return await asyncio.to_thread(self._plan, wanted, before, Evidence(known, nodes))

    def _load(self, mesh: str) -> Record:
        kept = self._store.secret(record_name(mesh))
        return Record.from_json(kept.decode()) if kept is not None else Record()

    def _plan(self, view: MeshView, before: MeshView | None, evidence: Evidence) -> MeshView:
        wanted, record = self._wants[view.mesh].of(view), self._records[view.mesh]
        plan = transitions.plan(wanted, record, evidence)
        if before is not None and before.wanted is view and before.plan == plan:
            return before
        if before is None or before.plan is None or before.plan != plan:
            # The plan is stored before it takes effect.
            self._save(view.mesh, wanted, plan, evidence)
            self._count(view.mesh, before.plan.waits if before is not None and before.plan else (), plan.waits)
        return view.with_plan(plan)

    def _save(self, mesh: str, wanted: Wanted, plan: Plan, evidence: Evidence) -> None:
        possible = {}
        for name, facts in plan.facts.items():
            known = tuple(one for one in evidence.of(name).possible if one != facts)
            possible[name] = (*known, facts)
        services = {name: service.tls for name, service in plan.services.items()}
        record = Record(services, dict(plan.retained) | dict(wanted.bundles), possible)
        if record != self._records[mesh]:
            self._store.put_secret(record_name(mesh), record.to_json().encode())
            self._records[mesh] = record

    def _count(self, mesh: str, before: tuple[Wait, ...], now: tuple[Wait, ...]) -> None:
        counts = Counter(wait.step for wait in now)
        for step in counts.keys() | {wait.step for wait in before}:
            self._metrics.steps.labels(mesh, step).set(counts[step])
        since, moment = self._since.get(mesh, {}), self._now()
        self._since[mesh] = {wait: since.get(wait, moment) for wait in now}

    def tell(self) -> None:
        """Logs which steps have been waiting for a while, and which of these no longer wait."""
        moment = self._now()
        for mesh, since in tuple(self._since.items()):
            logged = self._logged.setdefault(mesh, set())
            new = [wait for wait, at in since.items() if moment - at >= LOGGED_AFTER_S and wait not in logged]
            for wait in new[:LOGGED_AT_ONCE]:
                who = {"who": wait.who, "waits_for": wait.waits_for}
                log.warning("a step is waiting", mesh=mesh, step=wait.step, reason=wait.reason, **who)
            if len(new) > LOGGED_AT_ONCE:
                log.warning("more steps are waiting (mesh inspect waiting)", mesh=mesh, more=len(new) - LOGGED_AT_ONCE)
            for wait in [wait for wait in logged if wait not in since][:LOGGED_AT_ONCE]:
                log.info(
                    "a step is no longer waiting", mesh=mesh, step=wait.step, who=wait.who, waited_for=wait.waits_for
                )
            self._logged[mesh] = (logged | set(new)) & since.keys()
