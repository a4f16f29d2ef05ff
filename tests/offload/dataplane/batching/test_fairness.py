"""Fairness between connections and between users, and the bounds of each."""

from __future__ import annotations

import ctypes

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.offload.dataplane.batching.virtual_batcher import (
    ACCEPTED,
    GROUP_FULL,
    LANES,
    P256,
    QUEUE_FULL,
    RESERVE,
    RSA2048,
    Batcher,
    with_lanes,
)


def others_before_quiet(batcher: Batcher, quiet: int, served: int) -> list[int]:
    """Some operations are served, then the quiet source 63 submits its own and all are served: how many of the others'
    went before each of its."""
    for _ in range(served // LANES):
        batcher.take(1)
    mine = [batcher.submit(63, P256, 1)[1] for _ in range(quiet)]
    order: list[int] = []
    while (batch := batcher.take(2)) is not None:
        order += batch.items
    return [sum(1 for i in order[: order.index(item)] if i not in mine) for item in mine]


@given(noise=st.lists(st.integers(1, 60), min_size=1, max_size=20), quiet=st.integers(1, 5), served=st.integers(0, 40))
def test_a_quiet_connection_is_served_in_turn(native: ctypes.CDLL, noise: list[int], quiet: int, served: int) -> None:
    """However much others have queued, each of them goes at most once before each operation of the quiet one."""
    batcher = Batcher(native, with_lanes(), queue_limit=5000, source_limit=5000)
    try:
        for source, count in enumerate(noise):
            for _ in range(count):
                batcher.submit(source, P256, 0)
        for k, others_before in enumerate(others_before_quiet(batcher, quiet, served), start=1):
            assert others_before <= k * len(noise)
    finally:
        batcher.close()


@given(st.lists(st.integers(20, 60), min_size=2, max_size=12))
def test_backlogged_connections_get_equal_shares(native: ctypes.CDLL, counts: list[int]) -> None:
    batcher = Batcher(native, with_lanes(), queue_limit=5000, source_limit=5000)
    owner: dict[int, int] = {}
    try:
        for source, count in enumerate(counts):
            for _ in range(count):
                owner[batcher.submit(source, P256, 0)[1]] = source
        served = dict.fromkeys(range(len(counts)), 0)
        for _ in range(20 * len(counts) // LANES):  # while all are backlogged
            batch = batcher.take(1)
            assert batch is not None
            for item in batch.items:
                served[owner[item]] += 1
            assert max(served.values()) - min(served.values()) <= 1
    finally:
        batcher.close()


@settings(deadline=None)
@given(
    connections=st.lists(st.integers(1, 16), min_size=1, max_size=3),
    each=st.integers(1, 12),
    quiet=st.integers(1, 5),
    served=st.integers(0, 20),
)
def test_a_user_gains_nothing_by_more_connections(
    native: ctypes.CDLL, connections: list[int], each: int, quiet: int, served: int
) -> None:
    """Over however many connections others queue, each *user* goes at most once before each of the quiet one's."""
    batcher = Batcher(native, with_lanes(), queue_limit=5000, source_limit=5000, sources_per_group=16)
    try:
        for user, count in enumerate(connections):
            for source in range(16 * user, 16 * user + count):
                for _ in range(each):
                    batcher.submit(source, P256, 0)
        for k, others_before in enumerate(others_before_quiet(batcher, quiet, served), start=1):
            assert others_before <= k * len(connections)
    finally:
        batcher.close()


def test_connections_share_what_their_user_gets(native: ctypes.CDLL) -> None:
    """A user with 15 connections and one with a single one: half each, and the 15 share their half evenly."""
    batcher = Batcher(native, with_lanes(), queue_limit=5000, source_limit=5000, sources_per_group=16)
    owner = {batcher.submit(source, P256, 0)[1]: source for source in [*range(15), 16] for _ in range(200)}
    served: dict[int, int] = dict.fromkeys(owner.values(), 0)
    for _ in range(300 // LANES):
        batch = batcher.take(1)
        assert batch is not None
        for item in batch.items:
            served[owner[item]] += 1
    many = [served[source] for source in range(15)]
    assert abs(sum(many) - served[16]) <= 1
    assert max(many) - min(many) <= 1
    batcher.close()


def test_a_user_has_a_bound_of_its_own(native: ctypes.CDLL) -> None:
    batcher = Batcher(native, with_lanes(), group_limit=10, sources_per_group=16)
    assert [batcher.submit(0, P256, 0)[0] for _ in range(12)] == [ACCEPTED] * 10 + [GROUP_FULL] * 2
    assert batcher.submit(16, P256, 0)[0] == ACCEPTED
    batch = batcher.take(1)
    assert batch is not None
    batcher.complete(batch.items)
    assert batcher.submit(0, P256, 1)[0] == ACCEPTED
    batcher.close()


def test_a_noisy_connection_does_not_lock_out_others_of_its_user(native: ctypes.CDLL) -> None:
    """All sidecars of a node may be one user."""
    batcher = Batcher(native, with_lanes(), group_limit=10, sources_per_group=16)
    assert [batcher.submit(0, P256, 0)[0] for _ in range(11)] == [ACCEPTED] * 10 + [GROUP_FULL]
    assert [batcher.submit(1, P256, 0)[0] for _ in range(RESERVE + 1)] == [ACCEPTED] * RESERVE + [GROUP_FULL]
    batcher.close()


def test_connections_do_not_multiply_the_reserve_without_end(native: ctypes.CDLL) -> None:
    batcher = Batcher(native, with_lanes(), group_limit=10, sources_per_group=16)
    answers = [batcher.submit(n % 16, P256, 0)[0] for n in range(16 * RESERVE)]
    assert answers == [ACCEPTED] * 20 + [GROUP_FULL] * (16 * RESERVE - 20)
    batcher.close()


def test_a_full_queue_still_takes_some_of_everybody(native: ctypes.CDLL) -> None:
    batcher = Batcher(native, with_lanes(), queue_limit=100, source_limit=1000)
    assert [batcher.submit(0, RSA2048, 0)[0] for _ in range(101)].count(ACCEPTED) == 100
    assert batcher.submit(0, RSA2048, 0)[0] == QUEUE_FULL
    assert [batcher.submit(1, RSA2048, 0)[0] for _ in range(RESERVE + 1)] == [ACCEPTED] * RESERVE + [QUEUE_FULL]
    batcher.close()
