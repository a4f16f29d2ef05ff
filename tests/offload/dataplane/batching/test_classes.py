"""Classes beside each other: a short one waits for at most one batch of a long one."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.offload.dataplane.batching.virtual_batcher import (
    LANES,
    P256,
    P384,
    RSA2048,
    RSA3072,
    RSA4096,
    US,
    Batcher,
    software_only,
    with_lanes,
)


class Shards:
    """Shards in virtual time: each takes a batch when it is free, and is busy for what the cost model says."""

    def __init__(self, batcher: Batcher, count: int) -> None:
        self.batcher = batcher
        self.busy_until = [0] * count
        self.batches: list[list[int] | None] = [None] * count
        self.started: dict[int, int] = {}
        self.time_of: dict[int, int] = dict.fromkeys(range(6), 0)

    def run_until(self, end: int) -> None:
        while (at := min(self.busy_until)) <= end:
            shard = self.busy_until.index(at)
            batch = self.batches[shard]
            if batch is not None:
                self.batcher.complete(batch)
                self.batches[shard] = None
            others_idle = any(b is None for i, b in enumerate(self.batches) if i != shard)
            taken = self.batcher.take(at, others_idle=others_idle)
            if taken is None:
                self.busy_until[shard] = end + 1
                continue
            cost = self.batcher.cost(taken.algorithm, len(taken.items))
            self.batches[shard] = taken.items
            self.busy_until[shard] = at + cost
            self.time_of[taken.algorithm] += cost
            self.started.update(dict.fromkeys(taken.items, at))


@settings(max_examples=60, deadline=None)
@given(
    long_classes=st.lists(st.sampled_from([RSA2048, RSA3072, RSA4096, P384]), min_size=1, max_size=4, unique=True),
    gaps=st.lists(st.integers(600, 9000), min_size=1, max_size=25),
    shards=st.integers(1, 4),
    lanes=st.booleans(),
)
def test_p256_waits_for_at_most_one_long_batch(
    native: ctypes.CDLL, long_classes: list[int], gaps: list[int], shards: int, lanes: bool
) -> None:
    """Endless load of long classes on every shard; P-256 operations come now and then (below their share)."""
    batcher = Batcher(native, with_lanes() if lanes else software_only(), queue_limit=60000, source_limit=60000)
    try:
        for algorithm in long_classes:
            for _ in range(1500):
                batcher.submit(algorithm, algorithm, 0)
        shard = Shards(batcher, shards)
        now = 0
        arrivals: dict[int, int] = {}
        for gap in gaps:
            now += gap * US
            shard.run_until(now - 1)
            arrivals[batcher.submit(9, P256, now)[1]] = now
        shard.run_until(now + 60_000 * US)
        longest = max(batcher.cost(c, n) for c in long_classes for n in range(1, LANES + 1))
        for item, arrived in arrivals.items():
            assert shard.started[item] - arrived <= longest
    finally:
        batcher.close()


@pytest.mark.slow(seconds=3)
@settings(max_examples=60, deadline=None)
@given(
    classes=st.lists(st.sampled_from(range(6)), min_size=2, max_size=6, unique=True),
    shards=st.integers(1, 4),
    lanes=st.booleans(),
)
def test_no_backlogged_class_is_ahead_by_more_than_a_batch(
    native: ctypes.CDLL, classes: list[int], shards: int, lanes: bool
) -> None:
    batcher = Batcher(native, with_lanes() if lanes else software_only(), queue_limit=60000, source_limit=60000)
    try:
        for algorithm in classes:
            for _ in range(6000):
                batcher.submit(algorithm, algorithm, 0)
        shard = Shards(batcher, shards)
        shard.run_until(5_000 * US)  # not longer, so that all are backlogged to the end
        times = [shard.time_of[algorithm] for algorithm in classes]
        longest = max(batcher.cost(c, n) for c in classes for n in range(1, LANES + 1))
        assert max(times) - sum(times) / len(times) <= longest
    finally:
        batcher.close()


def test_backlogged_classes_share_kernel_time(native: ctypes.CDLL) -> None:
    batcher = Batcher(native, with_lanes(), queue_limit=60000, source_limit=60000)
    for _ in range(1000):
        batcher.submit(0, RSA4096, 0)
    for _ in range(40000):
        batcher.submit(1, P256, 0)
    shards = Shards(batcher, 2)
    shards.run_until(50_000 * US)
    assert shards.time_of[P256] == pytest.approx(shards.time_of[RSA4096], abs=2 * batcher.cost(RSA4096, 8))
    batcher.close()
