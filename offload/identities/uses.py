"""The uses of each identity's keys, by backend and by caller: totals since the start.

Written by the daemon's one thread from what the data plane counted, read by those of admin and metrics. Bounded: totals
by identity in force, and by the first CALLERS_MAX callers; the others are counted together.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from offload import _dataplane

CALLERS_MAX = 32  # per identity, which has a handful, unless each worker runs as a separate user


@dataclass(frozen=True)
class CallerUse:
    uid: int
    executable: str  # empty if it could not be read
    count: int
    last: float  # seconds since 1970


@dataclass
class _Totals:
    operations: dict[tuple[str, str], int] = field(default_factory=dict)  # (status, backend) -> count
    callers: dict[tuple[int, str], tuple[int, float]] = field(default_factory=dict)
    others: int = 0  # operations of callers beyond CALLERS_MAX


@dataclass(frozen=True)
class IdentityUse:
    operations: Mapping[tuple[str, str], int]
    callers: tuple[CallerUse, ...]  # the busiest first
    others: int


class IdentityUses:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[str, _Totals] = {}
        self._unlisted = 0

    def add(
        self,
        uses: Sequence[_dataplane.KeyUse],
        unlisted: int,
        names: Mapping[int, str],
        backends: Sequence[str],
        now: float,
    ) -> None:
        """`names`: names of the identities by their numbers; `backends`: in the order of the data plane."""
        with self._lock:
            self._unlisted += unlisted
            for use in uses:
                if (name := names.get(use["identity"])) is None:
                    continue  # it is gone, and so are its totals
                totals = self._totals.setdefault(name, _Totals())
                kind = use["status"], backends[use["backend"]]
                totals.operations[kind] = totals.operations.get(kind, 0) + use["count"]
                caller = use["uid"], use["executable"]
                if caller in totals.callers or len(totals.callers) < CALLERS_MAX:
                    totals.callers[caller] = (totals.callers.get(caller, (0, 0.0))[0] + use["count"], now)
                else:
                    totals.others += use["count"]

    def keep(self, names: Collection[str]) -> None:
        """Forgets the identities that are not among these."""
        with self._lock:
            for gone in self._totals.keys() - set(names):
                del self._totals[gone]

    def current(self) -> dict[str, IdentityUse]:
        """Uses by identity, without unused ones."""
        with self._lock:
            return {name: _shown(totals) for name, totals in self._totals.items()}

    @property
    def unlisted(self) -> int:
        """Operations beyond the kinds of callers that are distinguished within a second: in no identity's total."""
        return self._unlisted


def _shown(totals: _Totals) -> IdentityUse:
    callers = [CallerUse(uid, executable, *seen) for (uid, executable), seen in totals.callers.items()]
    callers.sort(key=lambda caller: -caller.count)
    return IdentityUse(dict(totals.operations), tuple(callers), totals.others)
