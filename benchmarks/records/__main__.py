"""python -m benchmarks.records --json FILE: the module's record path against stock Envoy's. About two minutes.

CPU of the Envoy process per megabyte or request, and the rate of both, for bodies in both directions and for small
requests. Slices of the contenders take turns, each round in another order, and the ratios are medians over pairs of
slices of one round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import machine
from benchmarks.handshake.run import rotated
from benchmarks.records import results
from benchmarks.records.loads import LOADS, Load
from benchmarks.records.rig import STOCK, Rig, Slice
from deploy import output_paths
from deploy.node import envoy
from deploy.node.processes import NodeError, Processes, interruptible

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=output_paths.file, metavar="FILE", help="write the figures here too")
    parser.add_argument("--rounds", type=int, default=25, help="slices per load and contender (25)")
    parser.add_argument("--loads", default="", metavar="TEXT", help="only loads with this in their name")
    parser.add_argument(
        "--other",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="another build of the module, measured as one more contender named for its folder",
    )
    return parser.parse_args()


def measured(rig: Rig, loads: Sequence[Load], rounds: int) -> list[dict[str, Any]]:
    names = list(rig.contenders)
    slices: dict[str, dict[str, list[Slice]]] = {load.name: {name: [] for name in names} for load in loads}
    # Rounds outside, loads inside: a disturbance of the host affects all loads a little, and none alone.
    for number in track(range(-1, rounds), console=console, transient=True):
        for load in loads:
            for name in rotated(names, number + 1):
                one = rig.run(name, load)
                if number >= 0:  # the first round warms up
                    slices[load.name][name].append(one)
    return [cell for load in loads for cell in results.cells(load, slices[load.name])]


def show(cells: Sequence[dict[str, Any]]) -> None:
    table = Table(title="Record path: CPU of Envoy per MB or request, and rate", title_justify="left")
    for column in ("load", "", "CPU", "per second"):
        table.add_column(column, justify="left" if column in ("load", "") else "right", no_wrap=True)
    for column in ("CPU, stock / this", "rate, this / stock", "client's CPU"):
        table.add_column(column, justify="right")
    for cell in cells:
        stock = cell["mode"] == STOCK
        colour = "green" if results.met(cell) else "red"
        table.add_row(
            cell["load"] if stock else "",
            cell["mode"],
            f"{cell['cpu_us']:.1f} us/{cell['unit']}",
            f"{cell['per_s']:,.0f}",
            "" if stock else f"[{colour}]{cell['cpu_ratio_stock_over_this']:.3f}[/]",
            "" if stock else f"{cell['rate_ratio_this_over_stock']:.3f}",
            f"{cell['client_cpu_share']:.0%}",
        )
    console.print(table)


def document(options: argparse.Namespace, loads: Sequence[Load]) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="tls-offload-bench-"))
    load_average = os.getloadavg()[0]
    try:
        with Processes(folder) as processes:
            rig = Rig(processes, folder, {file.resolve().parent.name: file.resolve() for file in options.other})
            cells = measured(rig, loads, options.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "date": machine.today(),
        "command": "python -m benchmarks.records " + " ".join(sys.argv[1:]),
        "rounds": options.rounds,
        "machine": machine.machine(),
        "load_average_before": round(load_average, 2),
        "versions": machine.versions(),
        "envoy": machine.envoy_version(envoy.binary()),
        "cells": cells,
    }


def main() -> int:
    options = arguments()
    loads = [load for load in LOADS if options.loads in load.name]
    if not loads or options.rounds < 1:
        console.print("nothing to measure: the loads are " + "; ".join(load.name for load in LOADS))
        return 2
    try:
        with interruptible():
            found = document(options, loads)
    except NodeError as error:
        console.print(f"[bold red]the benchmark failed:[/] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    show(found["cells"])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
