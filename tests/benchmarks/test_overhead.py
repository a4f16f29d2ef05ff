from __future__ import annotations

import pytest

from benchmarks.overhead import HANDSHAKES, PLAN, QUIET, ROUNDS, kernel_us, threads_us
from deploy.node.daemon import Counters


def test_kernel_time_is_that_of_the_batches_that_ran() -> None:
    times = {"ifma8": [10.0, 11, 12, 13, 14, 15, 16, 20], "software": [30.0 * n for n in range(1, 9)]}
    counters = Counters(
        {},
        {
            ("p256", "ifma8", "full", 8): 3,
            ("p256", "ifma8", "idle", 1): 2,
            ("p256", "software", "idle", 1): 1,
            ("rsa2048", "ifma8", "full", 8): 100,
            ("p256", "ifma8", "idle", 2): 0,
        },
        {},
        {},
        0,
    )
    assert kernel_us(counters, "p256", times) == pytest.approx(3 * 20 + 2 * 10 + 30)


def test_handshakes_are_measured_in_as_many_rounds_as_the_rest() -> None:
    assert [PLAN.rounds_of(load) for load in PLAN.loads] == [ROUNDS, ROUNDS]


def test_quiet_load_comes_after_the_saturation_that_it_is_a_share_of() -> None:
    assert PLAN.loads == (HANDSHAKES, QUIET)
    assert QUIET.rate_share == 0.3


def test_kernel_threads_are_added_and_the_front_stands_apart() -> None:
    threads = {"offload-shard0": 200.04, "offload-shard1": 150.0, "offload-front": 50.0, "wrk:worker_0": 300.0}
    assert threads_us(threads) == {"shards_us": 350.0, "front_us": 50.0}
    assert threads_us({"python": 3.0}) == {"shards_us": 0.0, "front_us": 0.0}
