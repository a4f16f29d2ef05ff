"""Waiting for a batch: only under dense load, and never for long."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.offload.dataplane.batching.virtual_batcher import (
    IDLE_SHARD,
    MAX_WAIT,
    P256,
    P384,
    RSA2048,
    US,
    Batcher,
    with_lanes,
)


def waiting(native: ctypes.CDLL) -> Batcher:
    return Batcher(native, with_lanes(), max_wait=400 * US)


def test_operations_that_come_alone_do_not_wait(native: ctypes.CDLL) -> None:
    batcher = waiting(native)
    for now in range(10**6, 10**8, 10**6):  # one a millisecond
        batcher.submit(0, RSA2048, now)
        batch = batcher.take(now)
        assert batch is not None
        assert (batch.reason, len(batch.items)) == (IDLE_SHARD, 1)
        batcher.complete(batch.items)
    batcher.close()


@pytest.mark.parametrize(("algorithm", "full"), [(P384, 8), (RSA2048, 4)])
def test_operations_that_come_quickly_wait_for_full_lanes(native: ctypes.CDLL, algorithm: int, full: int) -> None:
    batcher, now, sizes = waiting(native), 10**6, []
    for _ in range(200):
        now += 30 * US
        batcher.submit(0, algorithm, now)
        if (batch := batcher.take(now)) is not None:
            sizes.append(len(batch.items))
            batcher.complete(batch.items)
    assert set(sizes[-10:]) == {full}
    # And when no more come, they go after three gaps, long before max_wait.
    batcher.submit(0, algorithm, now)
    assert now < batcher.ready_at(now) <= now + 3 * 40 * US
    batch = batcher.take(batcher.ready_at(now))
    assert batch is not None
    assert batch.reason == MAX_WAIT
    batcher.close()


def test_cheap_operations_do_not_wait_long(native: ctypes.CDLL) -> None:
    """P-256 would wait for at most four times its 29 us, so not at all unless one comes every 58 us or faster."""
    batcher, now = waiting(native), 10**6
    for _ in range(100):
        now += 60 * US
        batcher.submit(0, P256, now)
        assert batcher.ready_at(now) == 0
        batch = batcher.take(now)
        assert batch is not None
        assert batch.reason == IDLE_SHARD
        batcher.complete(batch.items)
    batcher.close()


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60))
def test_nobody_waits_longer_than_max_wait(native: ctypes.CDLL, gaps: list[int]) -> None:
    batcher, now = waiting(native), 10**6
    waiting_since: dict[int, int] = {}
    for gap in [*gaps, 1000]:
        while (ready := batcher.ready_at(now)) <= now + gap * US and batcher.queued:
            now_then = max(now, ready)
            batch = batcher.take(now_then)
            assert batch is not None
            for item in batch.items:
                assert now_then - waiting_since.pop(item) <= 400 * US
            batcher.complete(batch.items)
        now += gap * US
        waiting_since[batcher.submit(0, RSA2048, now)[1]] = now
        assert batcher.ready_at(now) <= now + 400 * US
    batcher.close()
