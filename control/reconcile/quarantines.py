"""The quarantine of every dataplane: reports of proxies come in, which policies apply to each of them comes out."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping

import structlog

from control.mesh.choice import IN_FORCE, Choice, Made, Source
from control.mesh.proxy_policies import ProxyPolicies
from control.mesh.view import MeshView
from control.metrics import Metrics
from control.model.resource import Resource
from control.policies import POLICIES
from control.policies.matching import matching
from control.xds.quarantine import LeftOut, Quarantine, Surroundings
from control.xds.render import provenance
from control.xds.render.provenance import source

log = structlog.get_logger(__name__)

# Marks a rejection by the control plane itself, in place of a type of xDS and the name of a resource.
CONFIGURATION = "configuration"
# A proxy's report is as long as its configuration, and is shown on one line.
SHOWN_DETAIL_CHARS = 300


class Quarantines:
    """Keyed by mesh and dataplane; used by the event loop and by the threads that build configurations."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._by_dataplane: dict[tuple[str, str], Quarantine] = {}
        self._shown: dict[tuple[str, str], dict[tuple[str, str], LeftOut]] = {}
        self._lock = threading.Lock()

    def choice(self, view: MeshView, dataplane: Resource) -> Choice:
        """Which policies apply to the proxy; to be called before each build."""
        key = (view.mesh, dataplane.name)
        found = self._by_dataplane.get(key)
        if found is None or not found.is_busy:
            return IN_FORCE
        with self._lock:
            found.look(surroundings(view, dataplane))
            self._show(*key, found)
            return found.choice

    def restarted(self, mesh: str, name: str) -> None:
        """A proxy has connected that has nothing yet."""
        with self._lock:
            found = self._by_dataplane.get((mesh, name))
            if found is not None:
                found.restarted()

    def took(self, mesh: str, name: str, type_url: str, content: Mapping[str, Made]) -> bool:
        """Records an acknowledgement; returns whether the proxy should be sent something else."""
        with self._lock:
            found = self._by_dataplane.setdefault((mesh, name), Quarantine())
            again = found.took(type_url, content)
            self._show(mesh, name, found)
            return again

    def refused(
        self, view: MeshView, dataplane: Resource, type_url: str, content: Mapping[str, Made], detail: str
    ) -> bool:
        """Records a rejection; returns whether the proxy should be sent something else."""
        with self._lock:
            found = self._by_dataplane.setdefault((view.mesh, dataplane.name), Quarantine())
            again = found.refused(type_url, content, detail, surroundings(view, dataplane), time.time())
            self._show(view.mesh, dataplane.name, found)
            return again

    def failed(self, view: MeshView, dataplane: Resource, choice: Choice, detail: str) -> bool:
        """Records that a configuration could not be made at all; returns whether another should be tried."""
        content = {CONFIGURATION: _all_policies(view, dataplane, choice)}
        return self.refused(view, dataplane, CONFIGURATION, content, detail)

    def made(self, view: MeshView, dataplane: Resource, choice: Choice) -> None:
        """Records that a configuration was made."""
        found = self._by_dataplane.get((view.mesh, dataplane.name))
        if found is not None and found.has_trial(CONFIGURATION):
            content = {CONFIGURATION: _all_policies(view, dataplane, choice)}
            self.took(view.mesh, dataplane.name, CONFIGURATION, content)

    def left_out(self, mesh: str, name: str) -> list[LeftOut]:
        with self._lock:
            found = self._by_dataplane.get((mesh, name))
            return found.left_out if found is not None else []

    def causes(self, mesh: str, name: str, type_url: str) -> tuple[Source, ...]:
        with self._lock:
            found = self._by_dataplane.get((mesh, name))
            return found.causes(type_url) if found is not None else ()

    def forget(self, mesh: str, name: str = "") -> None:
        """To be called for a deleted dataplane, or a whole mesh."""
        with self._lock:
            for key in [key for key in self._by_dataplane if key[0] == mesh and name in ("", key[1])]:
                del self._by_dataplane[key]
                self._shown.pop(key, None)
            self._count(mesh)

    def _show(self, mesh: str, name: str, quarantine: Quarantine) -> None:
        before, now = self._shown.get((mesh, name), {}), {(one.type, one.name): one for one in quarantine.left_out}
        if before.keys() == now.keys():
            return
        self._shown[mesh, name] = now
        for key, one in now.items():
            if key not in before:
                message = one.message[:SHOWN_DETAIL_CHARS]
                log.warning("a policy is left out for a proxy", mesh=mesh, dataplane=name, reason=message)
        for type_name, policy in before.keys() - now.keys():
            log.info("a policy applies to a proxy again", mesh=mesh, dataplane=name, type=type_name, policy=policy)
        self._count(mesh)

    def _count(self, mesh: str) -> None:
        counts: dict[str, int] = defaultdict(int)
        for (of_mesh, _), shown in self._shown.items():
            if of_mesh == mesh:
                for type_name, _ in shown:
                    counts[type_name or "closed"] += 1
        self._metrics.show_quarantined(mesh, counts)


def _all_policies(view: MeshView, dataplane: Resource, choice: Choice) -> Made:
    policies = ProxyPolicies(view, dataplane, choice)
    return provenance.of_proxy(policies, dataplane, *(policy.type for policy in POLICIES))


def surroundings(view: MeshView, dataplane: Resource) -> Surroundings:
    def selecting(type_name: str) -> Made:
        return frozenset(map(source, matching(view.of_type(type_name), dataplane.effective_labels)))

    def version(type_name: str, name: str) -> str:
        found = view.get(type_name, name)
        return source(found).version if found is not None else ""

    return Surroundings(selecting, version)
