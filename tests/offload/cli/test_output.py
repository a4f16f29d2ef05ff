"""What the views of `offload` are made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offload.cli.status import bars, batch_sizes, quantile
from offload.v1 import admin_pb2
from tests.offload.cli.invoke import good, run_process
from tests.offload.daemon_process import DaemonProcess
from tests.offload.key_files import Authority, shared_key, write_pair


@pytest.mark.slow(seconds=12)
def test_bench() -> None:
    shown = json.loads(good(run_process("bench", "-a", "p256", "-a", "ed25519", "--rounds", "1", "-o", "json")))
    assert set(shown["batch_us"]) == {"p256", "ed25519"}
    for times in shown["batch_us"].values():
        assert all(len(values) == 8 and min(values) > 0 for values in times.values())
        assert "software" in times
    assert set(shown["service"]["p256"]["sidecars"]) == {"1", "8", "32"}
    assert {verdict["choice"] for verdict in shown["verdict"].values()} <= {"offload", "even", "envoy"}
    assert shown["summary"]
    assert "pays from" in good(run_process("bench", "-a", "p256", "--rounds", "1"))


def test_quantiles() -> None:
    histogram = admin_pb2.Histogram(bounds=[1, 2, 4], counts=[0, 10, 10, 0], sum=0)
    assert quantile(histogram, 0.5) == 2
    assert quantile(histogram, 0.25) == 1.5
    assert quantile(histogram, 0.75) == 3
    assert quantile(admin_pb2.Histogram(bounds=[1], counts=[0, 5]), 0.5) == 1
    assert quantile(admin_pb2.Histogram(bounds=[1], counts=[0, 0]), 0.5) is None


def test_bars() -> None:
    assert bars([0, 1, 100, 50, 0, 0, 0, 100]) == " ▁█▄   █"
    assert bars([0] * 8) == ""
    one = admin_pb2.ClassStatistics(
        batches=[admin_pb2.BatchCount(size=8, count=2), admin_pb2.BatchCount(size=8, count=1, reason="full")]
    )
    assert batch_sizes(one) == [0] * 7 + [3]


@pytest.mark.slow(seconds=2)
def test_names_are_not_markup_and_move_no_cursor(tmp_path: Path, keys: Path, authority: Authority) -> None:
    key = shared_key("p256")
    write_pair(keys, "[red]www[", key, authority.issue(key, "evil\x1b[2J", dns=()))
    made = DaemonProcess(tmp_path)
    made.configure()
    ended = run_process("check-config", "-c", made.config_file)
    assert "[red]www[" in good(ended)
    assert "CN=evil?" in ended.stdout
    assert "\x1b" not in ended.output
