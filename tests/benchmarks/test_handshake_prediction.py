"""Prediction and measurement beside each other."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from benchmarks.handshake import prediction
from benchmarks.handshake.plan import Load, between_envoys, headline


def cell(mode: str, load: Load, microseconds: float) -> dict[str, Any]:
    return {"mode": mode, **asdict(load), "total_cpu_us": microseconds, "handshakes_per_s": 900.0}


def guess(stock: float, offload: float) -> dict[str, float]:
    return {"stock_us": stock, "offload_us": offload, "stock_over_offload": stock / offload}


VERDICTS = {"p256": {"server": guess(200, 250), "mtls": guess(1000, 1250)}, "p384": {"server": guess(1, 1)}}


def test_rows_are_of_what_was_measured() -> None:
    cells = [cell(mode, headline("p256"), us) for mode, us in (("stock", 210), ("ifma", 300), ("soft", 400))]
    (row,) = prediction.compared(cells, VERDICTS)
    assert (row["key"], row["load"], row["mode"]) == ("p256", "server", "ifma")
    assert row["ratio"] == [0.8, 0.7]
    assert row["difference"] == pytest.approx(0.143)


def test_without_vector_kernels_software_is_what_was_predicted() -> None:
    cells = [cell(mode, between_envoys("p256"), us) for mode, us in (("stock", 1000), ("soft", 1250))]
    rows = prediction.compared(cells, VERDICTS)
    assert [(row["load"], row["mode"], row["difference"]) for row in rows] == [("mtls", "soft", 0.0)]
    (line,) = [line for line in prediction.markdown(rows) if line.startswith("| p256")]
    assert line == "| p256, mTLS between two Envoys | 1000, 1000 us | 1250, 1250 us | 0.80, 0.80 | +0% |"
    assert prediction.markdown([]) == []


@pytest.mark.slow(seconds=4)
def test_the_prediction_is_that_of_offload_bench() -> None:
    found = prediction.predicted(["p256"])
    assert found["p256"]["server"]["stock_us"] > 0
    assert found["p256"]["mtls"]["offload_us"] > found["p256"]["server"]["offload_us"]
