"""What holds for the batcher whatever happens: a model of it runs beside the C code."""

from __future__ import annotations

import ctypes
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.offload.dataplane.batching.virtual_batcher import (
    ACCEPTED,
    ED25519,
    GROUP_FULL,
    IDLE_SHARD,
    LANES,
    MAX_WAIT,
    NEVER,
    P256,
    QUEUE_FULL,
    RESERVE,
    RSA2048,
    SOURCE_FULL,
    US,
    Batch,
    Batcher,
    with_lanes,
)


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


@pytest.mark.slow(seconds=6)
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
