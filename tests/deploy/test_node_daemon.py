"""Counters of the daemon, and the configuration that the node writes for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy.node.certificates import Authority
from deploy.node.daemon import Counters, Settings, configuration, counters_of
from offload.config.settings import Config
from offload.v1 import admin_pb2


def counters(ok: int, batches: dict[int, int]) -> Counters:
    return Counters(
        {("p256", "OK", "ifma8"): ok, ("p256", "RESOURCE_EXHAUSTED", ""): 2},
        {("p256", "ifma8", "free", size): count for size, count in batches.items()},
        {"p256": ok * 1e-6},
        {"p256": 0.0},
        0,
    )


def test_a_span_is_the_difference() -> None:
    span = counters(100, {8: 10, 4: 5}).since(counters(40, {8: 4, 4: 2}))
    assert span.answered() == span.answered("p256") == 60
    assert span.answered("rsa2048") == 0
    assert span.batch_sizes()[8] == 6
    assert span.batch_sizes()[1] == 0
    assert span.mean_batch() == pytest.approx((6 * 8 + 3 * 4) / 9)
    assert span.refused() == {}
    assert span.backends() == {"ifma8": 60}


def test_what_is_new_in_a_span_counts_whole() -> None:
    span = counters(5, {1: 5}).since(Counters({}, {}, {}, {}, 0))
    assert span.answered() == 5
    assert span.refused() == {"RESOURCE_EXHAUSTED": 2}


def test_nothing_ran() -> None:
    assert Counters({}, {}, {}, {}, 0).mean_batch() == 0


def test_read_from_the_admin_interface() -> None:
    statistics = admin_pb2.StatisticsResponse()
    one = statistics.classes.add(algorithm="rsa2048", faults=3)
    one.operations.add(status="OK", backend="ifma8", count=16)
    one.batches.add(backend="ifma8", reason="full", size=8, count=2)
    one.run_seconds.sum = 0.5
    found = counters_of(statistics)
    assert found.answered("rsa2048") == 16
    assert found.mean_batch() == 8
    assert found.run_seconds == {"rsa2048": 0.5}
    assert found.faults == 3


def test_the_daemon_accepts_the_configuration(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    leaves = [authority.issue(name, "p256", tmp_path / "keys") for name in ("one", "two")]
    written = yaml.safe_load(yaml.safe_dump(configuration(leaves, tmp_path / "run", Settings(shards=2))))
    config = Config.model_validate(written)
    assert set(config.identities) == {"one", "two"}
    assert config.data_plane.shards == 2
    assert config.metrics.address is None
