"""Warnings that others can cause as often as they like, folded, so that they neither fill a disk nor hide the rest.

For each kind (a reason and a user, say) the first few distinct lines are written at once. Further events of that kind
are counted, and written as one line at the end of each interval: with the count of events, and the values of each
field, up to a bound. So nothing is left out silently, and a kind costs one line per interval however often it occurs.
Metrics count every event separately.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

INTERVAL_SECONDS = 10.0  # soon enough for somebody who watches the log during an attack or a mistake
AT_ONCE_MAX = 4  # a mistake is often made twice or three times at once: with two keys, by two processes
VALUES_MAX = 4  # per field, in the line for many events
KINDS_MAX = 256  # reasons times users; further kinds share one line
NOT_TOLD_APART = "more kinds of events than are listed"


class Log(Protocol):
    def warning(self, event: str, **fields: Any) -> Any: ...


@dataclass
class _Kind:
    event: str
    until: float
    at_once: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0  # events that are in no line yet
    values: dict[str, list[Any]] = field(default_factory=dict)  # by their fields

    def fold(self, count: int, fields: dict[str, Any]) -> None:
        self.count += count
        for name, value in fields.items():
            known = self.values.setdefault(name, [])
            if value not in known and len(known) <= VALUES_MAX:
                known.append(value)

    def fields(self) -> dict[str, Any]:
        """The value that all events had, or the list of the first values, with an ellipsis if there were more."""
        return {
            name: known[0] if len(known) == 1 else [*known[:VALUES_MAX], *(["..."] if len(known) > VALUES_MAX else [])]
            for name, known in self.values.items()
        }


class FoldedLog:
    """For any thread. Its owner calls `flush` about once a second, and `close` at the end."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, _Kind] = {}

    def warning(self, kind: Hashable, event: str, count: int = 1, **fields: Any) -> None:
        """Writes `count` events now, or counts them for the line at the end of the interval."""
        with self._lock:
            at_once = self._note(kind, event, count, fields)
        if at_once:
            self._log.warning(event, **fields, count=count)

    def flush(self) -> None:
        """Writes the lines of finished intervals."""
        self._flush(self._clock())

    def close(self) -> None:
        """Writes what is still counted."""
        self._flush(float("inf"))

    def _note(self, kind: Hashable, event: str, count: int, fields: dict[str, Any]) -> bool:
        known = self._kinds.get(kind)
        if known is None and len(self._kinds) >= KINDS_MAX:
            kind, event, fields = None, NOT_TOLD_APART, {}
            known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _Kind(event, self._clock() + INTERVAL_SECONDS)
        if kind is not None and len(known.at_once) < AT_ONCE_MAX and fields not in known.at_once:
            known.at_once.append(fields)
            return True
        known.fold(count, fields)
        return False

    def _flush(self, now: float) -> None:
        with self._lock:
            over = [(kind, it) for kind, it in self._kinds.items() if it.until <= now]
            for kind, it in over:
                if it.count == 0:
                    del self._kinds[kind]
                else:  # it may continue: the next interval has only one line
                    self._kinds[kind] = _Kind(it.event, now + INTERVAL_SECONDS, [{}] * AT_ONCE_MAX)
        for _, it in over:
            if it.count > 0:
                self._log.warning(it.event, **it.fields(), count=it.count, within_seconds=INTERVAL_SECONDS)
