"""The batcher's policy, with an injected clock and no threads.

A model of what must hold whatever happens runs beside the C code (`BatcherMachine`); the bounds that DESIGN 4.3
promises (fairness between users and their connections, a short class beside a long one) have tests of their own.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterator, Sequence
from ctypes import c_bool, c_uint, c_uint64, c_void_p
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

LANES = 8
RSA2048, RSA3072, RSA4096, P256, P384, ED25519 = range(6)
ACCEPTED, QUEUE_FULL, SOURCE_FULL, GROUP_FULL = range(4)
FULL, IDLE_SHARD, MAX_WAIT = range(3)
NEVER = 2**64 - 1
RESERVE = 4
US = 1000

# Microseconds of one operation in software, and of a batch on lanes (RSA: 4 operations, then 8).
SOFTWARE_US = {RSA2048: 640, RSA3072: 2000, RSA4096: 4500, P256: 56, P384: 440, ED25519: 27}
LANES_US = {RSA2048: 370, RSA3072: 1200, RSA4096: 2650, P256: 24, P384: 87, ED25519: 15}


def software_only() -> list[list[list[int]]]:
    return [[[SOFTWARE_US[c] * US * n for n in range(1, 9)] for c in range(6)]]


def with_lanes() -> list[list[list[int]]]:
    lanes = [[LANES_US[c] * US * (2 if c <= RSA4096 and n > 4 else 1) for n in range(1, 9)] for c in range(6)]
    return [*software_only(), lanes]


@dataclass
class Batch:
    algorithm: int
    backend: int
    reason: int
    items: list[int]


class Batcher:
    def __init__(
        self,
        native: ctypes.CDLL,
        costs: list[list[list[int]]],
        *,
        queue_limit: int = 1000,
        source_limit: int = 1000,
        group_limit: int = 60000,
        sources_per_group: int = 1,
        max_wait: int = 0,
    ) -> None:
        """Source n belongs to the user n // sources_per_group."""
        flat = [ns for backend in costs for algorithm in backend for ns in algorithm]
        self.native = native
        self.handle = c_void_p(
            native.shim_new(
                (c_uint64 * len(flat))(*flat),
                len(costs),
                c_uint64(5 * US),
                queue_limit,
                source_limit,
                group_limit,
                sources_per_group,
                c_uint64(max_wait),
            )
        )
        self.items = 0

    def close(self) -> None:
        self.native.shim_free(self.handle)

    def submit(self, source: int, algorithm: int, now: int, deadline: int = NEVER) -> tuple[int, int]:
        item, self.items = self.items, self.items + 1
        return self.native.shim_submit(self.handle, item, source, algorithm, c_uint64(now), c_uint64(deadline)), item

    def expire(self, now: int) -> list[int]:
        room = (c_uint * 65536)()
        return list(room[: self.native.shim_expire(self.handle, c_uint64(now), room)])

    def take(self, now: int, *, others_idle: bool = False) -> Batch | None:
        items, what = (c_uint * LANES)(), (c_uint * 3)()
        count = self.native.shim_take(self.handle, c_uint64(now), others_idle, items, what)
        return Batch(what[0], what[1], what[2], list(items[:count])) if count else None

    def regroup(self, source: int, group: int) -> None:
        self.native.shim_regroup(self.handle, source, group)

    def cancel(self, item: int) -> bool:
        return bool(self.native.shim_cancel(self.handle, item))

    def complete(self, items: Sequence[int]) -> None:
        self.native.shim_complete(self.handle, (c_uint * LANES)(*items), len(items))

    def ready_at(self, now: int) -> int:
        return int(self.native.shim_ready_at(self.handle, c_uint64(now)))

    def load(self, source: int) -> int:
        return int(self.native.shim_load(self.handle, source))

    def group_load(self, group: int) -> int:
        return int(self.native.shim_group_load(self.handle, group))

    @property
    def queued(self) -> int:
        return int(self.native.shim_queued(self.handle))

    def cost(self, algorithm: int, count: int) -> int:
        return int(self.native.shim_cost(self.handle, algorithm, count))

    def best(self, algorithm: int, count: int) -> int:
        return int(self.native.shim_best(self.handle, algorithm, count))

    def batch_size(self, algorithm: int, available: int, *, others_idle: bool) -> int:
        return int(self.native.shim_batch_size(self.handle, algorithm, available, others_idle))

    def shards_wanted(self, limit: int) -> int:
        return int(self.native.shim_shards_wanted(self.handle, limit))


@pytest.fixture(scope="session", autouse=True)
def _signatures(native: ctypes.CDLL) -> None:
    native.shim_new.restype = c_void_p
    native.shim_ready_at.restype = native.shim_cost.restype = c_uint64
    native.shim_cancel.restype = c_bool


@pytest.fixture
def batcher(native: ctypes.CDLL) -> Iterator[Batcher]:
    made = Batcher(native, with_lanes())
    yield made
    made.close()


# --- whatever happens -------------------------------------------------------------------------------------------------


@dataclass
class Expected:
    source: int
    algorithm: int
    deadline: int
    arrived: int
    state: str = "queued"


@dataclass
class Model:
    queue_limit: int
    source_limit: int
    group_limit: int
    items: dict[int, Expected] = field(default_factory=dict)
    groups: list[int] = field(default_factory=lambda: [0, 0, 1, 1])  # by source

    def of(self, source: int, *states: str) -> int:
        return sum(1 for i in self.items.values() if i.source == source and i.state in states)

    def of_group(self, group: int) -> int:
        return sum(self.of(source, "queued", "taken") for source in range(4) if self.groups[source] == group)

    @property
    def queued(self) -> int:
        return sum(1 for i in self.items.values() if i.state == "queued")


def machine(native: ctypes.CDLL, max_wait: int) -> type[RuleBasedStateMachine]:
    class BatcherMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model(queue_limit=20, source_limit=9, group_limit=13)
            self.batcher = Batcher(
                native,
                with_lanes(),
                queue_limit=20,
                source_limit=9,
                group_limit=13,
                sources_per_group=2,
                max_wait=max_wait,
            )
            self.now = 1_000_000
            self.running: list[list[int]] = []
            self.regrouped = False  # then a user may have more than its bound
            self.order: dict[tuple[int, int], deque[int]] = {}

        def teardown(self) -> None:
            """Nothing is lost: what is still queued comes out, once."""
            self.now += 10**12
            self.expire()
            while self.batcher.queued:
                self.take(others_idle=False)
            for item in self.model.items.values():
                assert item.state in ("taken", "done", "expired", "cancelled")
            self.batcher.close()

        @rule(
            source=st.integers(0, 3),
            algorithm=st.sampled_from([RSA2048, P256, ED25519]),
            allowed=st.one_of(st.none(), st.integers(0, 200)),
            count=st.integers(1, 6),
        )
        def submit(self, source: int, algorithm: int, allowed: int | None, count: int) -> None:
            for _ in range(count):
                deadline = NEVER if allowed is None else self.now + allowed * US
                answer, item = self.batcher.submit(source, algorithm, self.now, deadline)
                load, of_group = (
                    self.model.of(source, "queued", "taken"),
                    self.model.of_group(self.model.groups[source]),
                )
                in_reserve = load < RESERVE and of_group < 2 * self.model.group_limit
                if load >= self.model.source_limit:
                    assert answer == SOURCE_FULL
                elif of_group >= self.model.group_limit and not in_reserve:
                    assert answer == GROUP_FULL
                elif self.model.queued >= self.model.queue_limit and not in_reserve:
                    assert answer == QUEUE_FULL
                else:
                    assert answer == ACCEPTED
                    self.model.items[item] = Expected(source, algorithm, deadline, self.now)
                    self.order.setdefault((source, algorithm), deque()).append(item)

        @rule(source=st.integers(0, 3), group=st.integers(0, 1))
        def regroup(self, source: int, group: int) -> None:
            self.batcher.regroup(source, group)
            self.model.groups[source] = group
            self.regrouped = True

        @rule(us=st.integers(1, 100))
        def pass_time(self, us: int) -> None:
            self.now += us * US

        @rule()
        def expire(self) -> None:
            due = {n for n, i in self.model.items.items() if i.state == "queued" and i.deadline <= self.now}
            expired = self.batcher.expire(self.now)
            assert sorted(expired) == sorted(due)
            assert [self.model.items[n].deadline for n in expired] == sorted(self.model.items[n].deadline for n in due)
            self.leave(expired, "expired")

        @rule(others_idle=st.booleans())
        def take(self, others_idle: bool) -> None:
            self.expire()
            ready_at = self.batcher.ready_at(self.now)
            batch = self.batcher.take(self.now, others_idle=others_idle)
            if batch is None:
                assert ready_at > self.now
                oldest = min((i.arrived for i in self.model.items.values() if i.state == "queued"), default=NEVER)
                assert oldest + max_wait > self.now  # nobody waits for longer
                return
            assert ready_at == 0
            assert 1 <= len(set(batch.items)) == len(batch.items) <= LANES
            self.check_batch(batch, others_idle)
            for item in batch.items:
                expected = self.model.items[item]
                assert expected.algorithm == batch.algorithm
                # First in, first out within a connection and class.
                assert self.order[expected.source, expected.algorithm][0] == item
                self.leave([item], "taken")
            self.running.append(batch.items)

        def check_batch(self, batch: Batch, others_idle: bool) -> None:
            queued = [i for i in self.model.items.values() if i.state == "queued" and i.algorithm == batch.algorithm]
            size = self.batcher.batch_size(batch.algorithm, min(len(queued), LANES), others_idle=others_idle)
            assert len(batch.items) == size
            assert batch.backend == self.batcher.best(batch.algorithm, size)
            if batch.reason == MAX_WAIT:
                assert max_wait > 0
                assert len(batch.items) == len(queued) < LANES
            elif batch.reason == IDLE_SHARD:
                assert len(batch.items) == len(queued) < LANES
            else:
                assert len(batch.items) == LANES or len(batch.items) < len(queued)

        @precondition(lambda self: self.running)
        @rule(data=st.data())
        def complete(self, data: st.DataObject) -> None:
            batch = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
            self.batcher.complete(batch)
            for item in batch:
                self.model.items[item].state = "done"

        @precondition(lambda self: self.model.items)
        @rule(data=st.data())
        def cancel(self, data: st.DataObject) -> None:
            item = data.draw(st.sampled_from(sorted(self.model.items)))
            was_queued = self.model.items[item].state == "queued"
            assert self.batcher.cancel(item) == was_queued
            if was_queued:
                self.leave([item], "cancelled")

        def leave(self, items: list[int], state: str) -> None:
            for item in items:
                expected = self.model.items[item]
                assert expected.state == "queued", "answered twice"
                expected.state = state
                self.order[expected.source, expected.algorithm].remove(item)

        @invariant()
        def counts_agree(self) -> None:
            assert self.batcher.queued == self.model.queued
            for source in range(4):
                assert self.batcher.load(source) == self.model.of(source, "queued", "taken")
                assert self.batcher.load(source) <= self.model.source_limit
            for group in range(2):
                assert self.batcher.group_load(group) == self.model.of_group(group)
                most = self.model.group_limit + 2 * RESERVE
                assert self.batcher.group_load(group) <= most or self.regrouped
            assert self.model.queued <= self.model.queue_limit + 4 * RESERVE

    return BatcherMachine


@pytest.mark.parametrize("max_wait", [0, 50 * US], ids=["natural", "waiting"])
def test_nothing_is_lost_or_answered_twice(native: ctypes.CDLL, max_wait: int) -> None:
    run_state_machine_as_test(
        machine(native, max_wait), settings=settings(max_examples=150, stateful_step_count=60, deadline=None)
    )


def test_a_connection_of_another_user_brings_its_turns_along(batcher: Batcher) -> None:
    """Its user's other connections go on beside it; the one that it comes to has one turn, not two."""
    for _ in range(8):
        for source in (0, 1, 2):
            batcher.submit(source, P256, 0)
    batcher.regroup(1, 0)
    assert [batcher.group_load(group) for group in range(3)] == [16, 0, 8]
    first = batcher.take(1)
    assert first is not None
    sources = [item % 3 for item in first.items]
    assert sources.count(2) == LANES // 2
    assert sources.count(0) == sources.count(1) == LANES // 4
    left = [item for batch in iter(lambda: batcher.take(2), None) for item in batch.items]
    assert sorted(first.items + left) == list(range(24))
    batcher.complete(first.items)
    assert batcher.group_load(0) == 12


# --- fairness between connections -------------------------------------------------------------------------------------


@given(noise=st.lists(st.integers(1, 60), min_size=1, max_size=20), quiet=st.integers(1, 5), served=st.integers(0, 40))
def test_a_quiet_connection_is_served_in_turn(native: ctypes.CDLL, noise: list[int], quiet: int, served: int) -> None:
    """However much others have queued, each of them goes at most once before each operation of the quiet one."""
    batcher = Batcher(native, with_lanes(), queue_limit=5000, source_limit=5000)
    try:
        for source, count in enumerate(noise):
            for _ in range(count):
                batcher.submit(source, P256, 0)
        for _ in range(served // LANES):
            batcher.take(1)
        mine = [batcher.submit(63, P256, 1)[1] for _ in range(quiet)]
        order: list[int] = []
        while (batch := batcher.take(2)) is not None:
            order += batch.items
        for k, item in enumerate(mine, start=1):
            others_before = sum(1 for i in order[: order.index(item)] if i not in mine)
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
        for _ in range(served // LANES):
            batcher.take(1)
        mine = [batcher.submit(63, P256, 1)[1] for _ in range(quiet)]
        order: list[int] = []
        while (batch := batcher.take(2)) is not None:
            order += batch.items
        for k, item in enumerate(mine, start=1):
            others_before = sum(1 for i in order[: order.index(item)] if i not in mine)
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


# --- classes beside each other ----------------------------------------------------------------------------------------


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


# --- waiting ----------------------------------------------------------------------------------------------------------


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


# --- the cost model ---------------------------------------------------------------------------------------------------


def test_software_runs_small_batches_and_lanes_full_ones(native: ctypes.CDLL) -> None:
    software, lanes = Batcher(native, software_only()), Batcher(native, with_lanes())
    # Software gains nothing from a long batch: results should leave early.
    assert software.batch_size(RSA2048, 8, others_idle=False) == 1
    assert software.batch_size(P256, 8, others_idle=True) == 2
    # Lanes cost the same for 1 and for 8.
    assert lanes.batch_size(P256, 8, others_idle=False) == 8
    assert lanes.batch_size(P256, 5, others_idle=True) == 5
    assert lanes.batch_size(P256, 5, others_idle=False) == 5
    # Two lanes per RSA operation: 5 would cost as much as 8.
    assert [lanes.batch_size(RSA2048, n, others_idle=False) for n in range(4, 8)] == [4, 4, 4, 4]
    # Half a batch costs half, and leaves the rest to the other shard.
    assert lanes.batch_size(RSA2048, 8, others_idle=True) == 4
    software.close()
    lanes.close()


def test_where_four_lanes_take_half_the_time(native: ctypes.CDLL) -> None:
    """RSA-2048 on a Zen 4, as measured: two operations cost a little more than half of four."""
    costs = with_lanes()
    costs[1][RSA2048] = [us * US for us in (249, 249, 478, 478, 725, 725, 935, 930)]
    batcher = Batcher(native, costs)
    assert [batcher.batch_size(RSA2048, n, others_idle=False) for n in range(1, 9)] == [1, 2, 2, 4, 4, 4, 4, 8]
    # 8 by a hair: what decides is a few percent, and must not be given away to a smaller batch.
    costs[1][RSA2048][7] = 950 * US
    assert Batcher(native, costs).batch_size(RSA2048, 8, others_idle=False) == 8
    assert [batcher.batch_size(RSA2048, n, others_idle=True) for n in range(1, 9)] == [1, 2, 2, 2, 2, 2, 4, 4]
    batcher.close()


@given(
    software=st.integers(10, 5000),
    lanes=st.lists(st.integers(10, 20000), min_size=8, max_size=8),
)
def test_the_cheaper_backend_runs_a_batch(native: ctypes.CDLL, software: int, lanes: list[int]) -> None:
    costs = [[[software * US * n for n in range(1, 9)]] * 6, [[ns * US for ns in lanes]] * 6]
    batcher = Batcher(native, costs)
    try:
        vector = [n for n in range(1, 9) if lanes[n - 1] < software * n]
        for n in range(1, 9):
            assert batcher.best(P256, n) == (1 if n in vector else 0)
        assert native.shim_crossover(batcher.handle, P256, 1) == (vector[0] if vector else 9)
    finally:
        batcher.close()


def test_wanted_shards(batcher: Batcher) -> None:
    assert batcher.shards_wanted(4) == 0
    batcher.submit(0, P256, 0)
    assert batcher.shards_wanted(4) == 1
    for _ in range(8):
        batcher.submit(0, P256, 0)
    assert batcher.shards_wanted(4) == 2
    batcher.submit(0, RSA2048, 0)
    assert batcher.shards_wanted(4) == 3
    assert batcher.shards_wanted(2) == 2
