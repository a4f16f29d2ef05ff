"""Latency histograms of the load tools: merging and quantiles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


class Latencies:
    """Counts of latencies by the upper end of their bucket, in milliseconds (relative error below 1 %)."""

    def __init__(self, buckets: Iterable[tuple[float, int]] = ()) -> None:
        self.counts: Counter[float] = Counter()
        for upper_end, count in buckets:
            self.counts[upper_end] += count

    @classmethod
    def of(cls, block: Mapping[str, Any]) -> Latencies:
        """From a latency block of a tool that ran with `--histogram`."""
        return cls((upper_end, count) for upper_end, count in block["buckets"])

    def merge(self, other: Latencies) -> None:
        self.counts.update(other.counts)

    def __len__(self) -> int:
        return self.counts.total()

    def quantile(self, share: float) -> float:
        """The latency that `share` (0 to 1) of the values do not exceed; 0 if there are none."""
        wanted = max(1, math.ceil(share * len(self)))
        seen = 0
        for upper_end in sorted(self.counts):
            seen += self.counts[upper_end]
            if seen >= wanted:
                return upper_end
        return 0.0
