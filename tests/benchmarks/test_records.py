"""The record benchmark: what h2load says, what becomes of it, and every load on real Envoys, as short as can be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.records import results
from benchmarks.records.loads import LOADS, MEGABYTE, UP, Load, Report, parse
from benchmarks.records.rig import MODULE, STOCK, Rig, Slice
from deploy.load.usage import Usage
from deploy.node.processes import NodeError, Processes

OUTPUT = """starting benchmark...
TLS Protocol: TLSv1.3
progress: 100% done

finished in 183.46ms, 545.07 req/s, 545.21MB/s
requests: 100 total, 100 started, 98 done, 97 succeeded, 1 failed, 2 errored, 0 timeout
status codes: 97 2xx, 0 3xx, 0 4xx, 1 5xx
"""


def test_what_h2load_reports() -> None:
    assert parse(OUTPUT) == Report(seconds=0.18346, succeeded=97, failed=3)
    assert parse(OUTPUT.replace("183.46ms", "1.50s")).seconds == 1.5


def test_no_report_is_an_error() -> None:
    with pytest.raises(ValueError, match="no report: connection refused"):
        parse("connection refused\n")


def test_ratios_are_of_slices_next_to_each_other() -> None:
    def one(cpu_us: int, seconds: float) -> Slice:
        return Slice(Report(seconds, 10, 0), Usage(cpu_ns=cpu_us * 10_000, switches=20), 0.05)

    # The host became half as fast in the second round; the module takes 10 % more CPU in both.
    slices = {STOCK: [one(100, 1.0), one(200, 2.0)], MODULE: [one(110, 1.0), one(220, 2.5)]}
    stock, module = results.cells(LOADS[0], slices)
    assert (stock["cpu_us"], stock["per_s"], stock["switches"]) == (150, 7.5, 2)
    assert module["cpu_ratio_stock_over_this"] == pytest.approx(100 / 110, abs=1e-4)
    assert module["rate_ratio_this_over_stock"] == pytest.approx(0.9)
    assert results.met(stock)
    assert not results.met(module)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder: Path = tmp_path_factory.mktemp("records")
    with Processes(folder) as processes:
        yield Rig(processes, folder)


@pytest.mark.envoy
@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_every_load_on_both(rig: Rig, load: Load) -> None:
    short = replace(load, count=5)
    for name in (STOCK, MODULE):
        before = received(rig, name)
        one = rig.run(name, short)
        assert (one.report.succeeded, one.report.failed) == (5, 0)
        assert one.usage.cpu_ns > 0
        if load.path == UP:
            assert received(rig, name) - before >= 5 * MEGABYTE


def received(rig: Rig, name: str) -> int:
    return rig.contenders[name].stats()["http.https.downstream_cx_rx_bytes_total"]


@pytest.mark.envoy
def test_failed_requests_are_not_measured(rig: Rig) -> None:
    with pytest.raises(NodeError, match="3 of 3 requests failed"):
        rig.run(STOCK, replace(LOADS[0], count=3, path="/nothing"))
