"""What this version cannot read in the store: shown by /ready, a metric and the log."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import structlog

from control.metrics import Metrics
from control.model.unreadable import Unreadable

log = structlog.get_logger(__name__)


class LeftOut:
    """Keyed by mesh, with an empty key for Meshes themselves; used by several threads."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._by_mesh = metrics, dict[str, Sequence[Unreadable]]()
        self._lock = threading.Lock()

    def show(self, mesh: str, found: Sequence[Unreadable]) -> None:
        """Replaces what is reported as unreadable in the mesh."""
        with self._lock:
            before = self._by_mesh.pop(mesh, ())
            if found:
                self._by_mesh[mesh] = found
            known = {(one.key, one.version) for one in before}
            new = [one for one in found if (one.key, one.version) not in known]
            counts = Counter(one.type for one in found)
            for type_name in counts.keys() | {one.type for one in before}:
                self._metrics.left_out.labels(mesh, type_name).set(counts[type_name])
        for one in new:
            log.error("a stored resource is left out", mesh=mesh, type=one.type, name=one.name, reason=one.problem)

    def show_all(self, found: Iterable[Unreadable]) -> None:
        by_mesh: dict[str, list[Unreadable]] = defaultdict(list)
        for one in found:
            by_mesh[one.mesh].append(one)
        for mesh, some in by_mesh.items():
            self.show(mesh, some)

    @property
    def names(self) -> list[str]:
        """As mesh/type/name; without reasons, which may quote the resources."""
        with self._lock:
            return ["/".join((mesh, one.type, one.name)) for mesh, found in self._by_mesh.items() for one in found]
