"""How often a CA that fails is asked again. Pure: it is told the time, seconds of a steady clock."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_S = 1.0
# Files that were put right, or a store that was brought back, are noticed within this time.
LONGEST_S = 60.0


@dataclass(frozen=True)
class Trouble:
    """Why it failed last, how often in a row, and when it is asked again."""

    reason: str
    failures: int
    again_at: float


class Throttle(Generic[K]):
    """One state for each CA. Nothing is kept of one that works."""

    def __init__(self) -> None:
        self._troubles: dict[K, Trouble] = {}

    def trouble(self, key: K) -> Trouble | None:
        return self._troubles.get(key)

    def holds(self, key: K, now: float) -> bool:
        """Whether it is not to be asked yet."""
        trouble = self._troubles.get(key)
        return trouble is not None and now < trouble.again_at

    def failed(self, key: K, now: float, reason: str) -> bool:
        """Whether this reason is new."""
        before = self._troubles.get(key)
        failures = before.failures + 1 if before is not None else 1
        pause = min(LONGEST_S, FIRST_S * 2 ** min(failures - 1, 16))
        self._troubles[key] = Trouble(reason, failures, now + pause)
        return before is None or before.reason != reason

    def worked(self, key: K) -> bool:
        """Whether it had failed before."""
        return self._troubles.pop(key, None) is not None

    def failing(self) -> list[K]:
        """What has failed and has not worked since."""
        return list(self._troubles)

    def due(self, now: float) -> list[K]:
        """What has failed and may be asked again."""
        return [key for key, trouble in list(self._troubles.items()) if now >= trouble.again_at]
