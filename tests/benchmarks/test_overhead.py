from __future__ import annotations

import pytest

from benchmarks.overhead import PLAN, ROUNDS, kernel_us
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
    assert [PLAN.rounds_of(load) for load in PLAN.loads] == [ROUNDS]
