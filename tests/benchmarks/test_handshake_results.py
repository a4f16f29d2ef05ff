"""Cells and summary, from slices whose figures are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.handshake import charts, page, publish, results
from benchmarks.handshake.plan import KEYS, MODES, Load, between_envoys, headline, many_sidecars, open_loop
from benchmarks.handshake.rig import Slice
from deploy.load.usage import Usage
from deploy.node.daemon import Counters


def one_slice(handshakes: int, envoy_us: float, daemon_us: float = 0, failures: int = 0, primed: int = 0) -> Slice:
    done = handshakes + primed
    load = {
        "handshakes": handshakes,
        "sessions_primed": primed,
        "failures": failures,
        "failures_by_reason": {"handshake: timed out": failures} if failures else {},
        "handshakes_per_s": float(handshakes),
        "elapsed_s": 1.0,
        "client_cpu_us_per_handshake": 150.0,
        "client_cpu_share": 0.3,
        "rate": 0.0,
        "handshake_ms": {"buckets": [[1.0, handshakes - 1], [20.0, 1]]},
    }
    envoy = Usage(int(envoy_us * 1e3 * done), {"wrk:worker_0": int(envoy_us * 1e3 * done)}, 3 * done)
    daemon = Usage(int(daemon_us * 1e3 * done), {"offload-shard0": int(daemon_us * 1e3 * done)}, done)
    counters = (
        Counters({("rsa2048", "OK", "ifma8"): done}, {("rsa2048", "ifma8", "full", 8): done // 8}, {}, {}, 0)
        if daemon_us
        else None
    )
    return Slice(load, envoy, daemon, counters)


def test_a_cell_has_medians_and_all_latencies() -> None:
    slices = [one_slice(800, 100, 50), one_slice(80, 500, 300, failures=2), one_slice(1600, 120, 60)]
    cell = results.cell("ifma", headline("rsa2048"), slices)
    assert cell["envoy_cpu_us"] == 120
    assert cell["daemon_cpu_us"] == 60
    assert cell["total_cpu_us"] == 180
    assert cell["handshakes_per_s"] == 800
    assert cell["handshakes"] == 2480
    assert cell["failures"] == 2
    assert cell["failures_by_reason"] == {"handshake: timed out": 2}
    assert cell["p50_ms"] == 1.0
    assert cell["p99_9_ms"] == 20.0
    assert cell["mean_batch"] == 8
    assert cell["threads_cpu_us"] == {"offload-shard0": 60, "wrk:worker_0": 120}
    assert cell["envoy_switches"] == 3
    assert json.loads(json.dumps(cell)) == cell


def test_stock_has_no_batches() -> None:
    cell = results.cell("stock", headline("p256"), [one_slice(100, 90)])
    assert cell["mean_batch"] is None
    assert cell["daemon_cpu_us"] == 0


def test_primed_sessions_cost_handshakes_too() -> None:
    cell = results.cell("stock", headline("p256"), [one_slice(90, 100, primed=10)])
    assert cell["envoy_cpu_us"] == 100


@pytest.fixture
def cells() -> list[results.Cell]:
    """A run in which the offload halves the CPU of all keys but P-256, which it makes dearer."""
    made = []
    for key in KEYS:
        loads = [headline(key), open_loop(headline(key), 0.3), open_loop(headline(key), 0.6), many_sidecars(key, 8)]
        loads += [between_envoys(key), Load(key=key, concurrency=8)]
        for load in dict.fromkeys(loads):
            for mode in MODES:
                ours = (150, 50) if key == "p256" else (80, 20)
                envoy, daemon = (200, 0) if mode == "stock" else ours
                envoy = 100 if key == "p256" and mode == "stock" else envoy
                made.append(results.cell(mode, load, [one_slice(1000, envoy, daemon)]))
    return made


def test_summary_compares_the_headline_cells(cells: list[results.Cell]) -> None:
    summary = results.summary(cells)
    assert set(summary) == set(KEYS)
    assert summary["rsa2048"]["cpu_ratio_stock_over_ifma"] == 2.0
    assert summary["rsa2048"]["met"] is False
    assert summary["p256"]["cpu_ratio_stock_over_ifma"] == 0.5
    assert summary["p384"]["met"] is True
    assert summary["rsa2048"]["rate_ratio_ifma_over_stock"] == 1.0


def test_a_failure_spoils_the_goal(cells: list[results.Cell]) -> None:
    ours = results.find(cells, "ifma", headline("p384"))
    assert ours is not None
    ours["failures"] = 1
    assert results.summary(cells)["p384"]["met"] is False


def test_summary_leaves_out_what_was_not_measured(cells: list[results.Cell]) -> None:
    assert set(results.summary([c for c in cells if c["key"] == "p256"])) == {"p256"}
    assert results.summary([c for c in cells if c["mode"] != "ifma"]) == {}


def document(cells: list[results.Cell]) -> dict[str, Any]:
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "command": "python -m benchmarks.handshake --json <file>",
        "quick": True,
        "elapsed_s": 90.0,
        "rounds": 3,
        "headline_rounds": 4,
        "slice_s": 0.8,
        "machine": {"cpu": "A & B", "cores": 2, "virtual_machine": True},
        "versions": {"python": "3.11"},
        "envoy": "1.40.0",
        "memory_kib": {"stock": {"envoy": 50_000}},
        "scaling": [
            {"key": key, "kernel_threads": threads, "operations_per_s": 1000 * threads}
            for key in ("rsa2048", "p256")
            for threads in (1, 2, 4)
        ],
        "cells": cells,
        "summary": results.summary(cells),
    }


@pytest.mark.slow(seconds=3)
def test_charts_are_png_files_and_svg_texts(cells: list[results.Cell], tmp_path: Path) -> None:
    drawn = charts.draw_all(document(cells), tmp_path)
    assert set(drawn) == set(charts.NAMES)
    assert {"cpu_per_handshake", "rate_at_saturation", "latency_against_rate", "batches_against_sidecars"} <= set(drawn)
    for name in drawn:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in drawn[name]


def test_charts_need_data(tmp_path: Path) -> None:
    assert charts.draw_all({"cells": []}, tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_the_page_stands_alone_and_tells_where_it_does_not_pay(cells: list[results.Cell]) -> None:
    text = page.page(document(cells), dict.fromkeys(charts.NAMES, "<?xml?><svg></svg>"))
    assert text.count("<figure><svg>") == len(charts.NAMES)
    for outside in ("<script", "<link", "src=", "@import"):
        assert outside not in text
    assert "A &amp; B" in text
    assert "&lt;file&gt;" in text
    assert "2.00&times;" in text
    losses = text.split("Where it does not pay")[1].split("The load generator")[0]
    assert "p256" in losses
    assert "rsa2048" not in losses


def test_the_page_says_whether_the_load_generator_was_the_limit(cells: list[results.Cell]) -> None:
    assert "busy at most 30%" in page.generator_sentence(cells)
    assert "never what limited" in page.generator_sentence(cells)
    cells[0]["client_cpu_share"] = 0.97
    assert "97%" in page.generator_sentence(cells)
    assert "limits the rate" in page.generator_sentence(cells)


def test_both_envoys_count_where_there_are_two() -> None:
    one = replace(one_slice(1000, 100, 50), caller=Usage(80_000_000, {"wrk:worker_0": 80_000_000}, 4000))
    cell = results.cell("ifma", between_envoys("p256"), [one])
    assert cell["caller_cpu_us"] == 80
    assert cell["envoy_cpu_us"] == 180
    assert cell["total_cpu_us"] == 230
    assert cell["envoy_switches"] == 7
    assert cell["threads_cpu_us"]["wrk:worker_0"] == 180


def test_the_published_section_has_both_tables(cells: list[results.Cell]) -> None:
    found = document(cells) | {"load_average_before": 0.1}
    found["machine"] |= {"kernel": "6.1"}
    found["versions"] |= {"commit": "abc"}
    text = publish.section(found, {})
    assert text.count("\n| rsa2048") == 2
    assert "| rsa2048, TLS 1.3 | 200 us (0) | 100 us (0, 20) | 2.00 |" in text
    assert "tlsload has one thread" in text
