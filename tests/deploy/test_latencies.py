from __future__ import annotations

import pytest

from deploy.load.latencies import Latencies


def test_quantiles_are_those_of_the_values() -> None:
    latencies = Latencies([(1.0, 50), (2.0, 49), (10.0, 1)])
    assert [latencies.quantile(q) for q in (0.0, 0.5, 0.51, 0.99, 0.991, 1.0)] == [1.0, 1.0, 2.0, 2.0, 10.0, 10.0]


def test_merging_is_as_if_measured_together() -> None:
    one, other = Latencies([(1.0, 3), (4.0, 1)]), Latencies([(1.0, 1), (2.0, 5)])
    one.merge(other)
    assert len(one) == 10
    assert one.counts == {1.0: 4, 2.0: 5, 4.0: 1}


def test_nothing_measured() -> None:
    assert Latencies().quantile(0.99) == 0.0


def test_reads_a_block_of_a_tool() -> None:
    latencies = Latencies.of({"count": 3, "buckets": [[0.5, 2], [1.5, 1]]})
    assert latencies.quantile(1) == pytest.approx(1.5)
