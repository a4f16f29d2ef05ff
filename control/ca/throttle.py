"""Backoff for a CA that fails. Pure: callers pass the time, in seconds of a monotonic clock."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_S = 1.0
# Repaired files, or a store that is back, are noticed within this time.
LONGEST_S = 60.0


@dataclass(frozen=True)
class Trouble:
    """Why it failed last, how often in a row, and when the next attempt is due."""

    reason: str
    failures: int
    again_at: float


class Throttle(Generic[K]):
    """One state for each failing CA; none for one that works."""

    def __init__(self) -> None:
        self._troubles: dict[K, Trouble] = {}

    def trouble(self, key: K) -> Trouble | None:
        return self._troubles.get(key)

    def holds(self, key: K, now: float) -> bool:
        """Whether the CA must not be tried yet."""
        trouble = self._troubles.get(key)
        return trouble is not None and now < trouble.again_at

    def failed(self, key: K, now: float, reason: str) -> bool:
        """Records a failure; returns whether the reason is new."""
        before = self._troubles.get(key)
        failures = before.failures + 1 if before is not None else 1
        pause = min(LONGEST_S, FIRST_S * 2 ** min(failures - 1, 16))
        self._troubles[key] = Trouble(reason, failures, now + pause)
        return before is None or before.reason != reason

    def worked(self, key: K) -> bool:
        """Records a success; returns whether the CA had failed before."""
        return self._troubles.pop(key, None) is not None

    def failing(self) -> list[K]:
        """CAs that have failed and have not worked since."""
        return list(self._troubles)

    def due(self, now: float) -> list[K]:
        """CAs that have failed and may be tried again."""
        return [key for key, trouble in list(self._troubles.items()) if now >= trouble.again_at]
