"""Compares the predictions of `offload bench` with this benchmark. Reported, not judged: the goal is 15%."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks.handshake import plan, results
from deploy.load.tools import LoadToolError

SECONDS = 300
GOAL = 0.15
LOADS = {"server": plan.headline, "mtls": plan.between_envoys}
TITLES = {"server": "server", "mtls": "mTLS between two Envoys"}


def predicted(keys: Sequence[str]) -> dict[str, Any]:
    """By key and load, as in `offload bench -o json`. To be run while nothing else of the benchmark runs."""
    line = [sys.executable, "-m", "offload", "bench", "-o", "json", "--rounds", "7"]
    line += [word for key in keys for word in ("--algorithm", key)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise LoadToolError(f"offload bench failed, which is to predict the figures: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)["verdict"]
    return found


def compared(cells: Sequence[results.Cell], prediction: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each measured key and load: microseconds, ratios, and the error of the prediction.

    The offload uses the vector kernels, or software if the host has none, as in `offload bench`.
    """
    rows = []
    for key, verdict in prediction.items():
        for name, load in LOADS.items():
            stock = results.find(cells, "stock", load(key))
            ours = results.find(cells, "ifma", load(key)) or results.find(cells, "soft", load(key))
            if not stock or not ours:
                continue
            ratio, guess = stock["total_cpu_us"] / ours["total_cpu_us"], verdict[name]["stock_over_offload"]
            rows.append(
                {
                    "key": key,
                    "load": name,
                    "mode": ours["mode"],
                    "stock_us": [verdict[name]["stock_us"], stock["total_cpu_us"]],
                    "offload_us": [verdict[name]["offload_us"], ours["total_cpu_us"]],
                    "ratio": [guess, round(ratio, 3)],
                    "difference": round(guess / ratio - 1, 3),
                    "handshakes_per_s": stock["handshakes_per_s"],
                }
            )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = Table(title="What offload bench predicted, and what was measured", title_justify="left")
    for column in ("key", "load", "stock", "offload", "stock / offload", "difference"):
        shown.add_column(column, justify="left" if column in ("key", "load") else "right")
    for row in rows:
        colour = "green" if abs(row["difference"]) <= GOAL else "yellow"
        shown.add_row(
            row["key"],
            TITLES[row["load"]],
            *("{:.0f}, {:.0f} us".format(*row[name]) for name in ("stock_us", "offload_us")),
            "{:.2f}, {:.2f}".format(*row["ratio"]),
            f"[{colour}]{row['difference']:+.0%}[/]",
        )
    return shown


def markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The section for docs/performance/index.md; empty if there is no prediction."""
    if not rows:
        return []
    lines = [
        "What `offload bench` predicted on this host right before, and what was measured (goal: within 15%):",
        "",
        "| key, load | stock: predicted, measured | offload | stock / offload | difference |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        stock, ours = ("{:.0f}, {:.0f} us".format(*row[name]) for name in ("stock_us", "offload_us"))
        ratio = "{:.2f}, {:.2f}".format(*row["ratio"])
        lines.append(f"| {row['key']}, {TITLES[row['load']]} | {stock} | {ours} | {ratio} | {row['difference']:+.0%} |")
    return [*lines, ""]
