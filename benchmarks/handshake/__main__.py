"""python -m benchmarks.handshake --json FILE --report DIR [--quick]"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import machine
from benchmarks.handshake import charts, page, plan, prediction, results, scaling
from benchmarks.handshake.rig import Rig, modes_of_this_host
from benchmarks.handshake.run import run
from deploy import output_paths
from deploy.load.tools import LoadToolError
from deploy.node import envoy
from deploy.node.processes import NodeError, Processes, interruptible

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.handshake",
        description="Compares stock Envoy with the same Envoy and the offload, interleaved in one run on this host.",
    )
    parser.add_argument("--json", type=output_paths.file, metavar="FILE", help="write all figures here")
    parser.add_argument(
        "--report", type=output_paths.folder, metavar="DIR", help="index.html, charts and results.json go here"
    )
    parser.add_argument("--quick", action="store_true", help="at most 3 minutes, for CI and newcomers")
    parser.add_argument("--keys", nargs="+", choices=plan.KEYS, default=plan.KEYS, help="only these key types")
    return parser.parse_args()


def measured(
    chosen: plan.Plan, modes: tuple[str, ...], threads: list[int]
) -> tuple[list[results.Cell], dict[str, dict[str, int]], list[dict[str, Any]]]:
    """Cells, memory by mode at the end, and the effect of kernel threads."""
    folder = Path(tempfile.mkdtemp(prefix="tls-offload-bench-"))
    columns = (
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    try:
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("starting", total=len(chosen.loads) + len(threads))

            def progress(name: str) -> None:
                bar.update(task, description=name, completed=done[0])
                done[0] += 1

            done = [0]
            with Processes(folder) as processes:
                rig = Rig(processes, folder, modes)
                cells = run(rig, chosen, progress)
                memory = {mode: contender.memory_kib() for mode, contender in rig.contenders.items()}
            (folder / "scaling").mkdir()
            return cells, memory, scaling.measured(folder / "scaling", threads, progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def document(options: argparse.Namespace, chosen: plan.Plan, threads: list[int]) -> dict[str, Any]:
    start, load_average, versions = time.monotonic(), os.getloadavg()[0], machine.versions()
    console.print("offload bench, for its prediction")
    guessed = prediction.predicted(options.keys)
    cells, memory, of_threads = measured(chosen, modes_of_this_host(), threads)
    return {
        "date": machine.today(),
        "command": "python -m benchmarks.handshake " + " ".join(sys.argv[1:]),
        "quick": options.quick,
        "elapsed_s": round(time.monotonic() - start, 1),
        "rounds": chosen.rounds,
        "headline_rounds": chosen.headline_rounds,
        "slice_s": chosen.slice_s,
        "machine": machine.machine(),
        "load_average_before": round(load_average, 2),
        "versions": versions,
        "envoy": machine.envoy_version(envoy.binary()),
        "memory_kib": memory,
        "scaling": of_threads,
        "cells": cells,
        "summary": results.summary(cells),
        "prediction": prediction.compared(cells, guessed),
    }


def summary_table(found: dict[str, Any]) -> Table:
    table = Table(title="CPU per handshake, TLS 1.3, 64 connections at once", title_justify="left")
    for column in (
        "key",
        "stock",
        "offload",
        "of it daemon",
        "stock / offload",
        "goal",
        "rate",
        "mean batch",
        "failures",
    ):
        table.add_column(column, justify="left" if column == "key" else "right")
    for key, entry in found["summary"].items():
        stock, ifma = (results.find(found["cells"], mode, plan.headline(key)) for mode in ("stock", "ifma"))
        if not stock or not ifma:
            continue
        colour = "green" if entry["met"] else "red"
        table.add_row(
            key,
            f"{stock['total_cpu_us']:.0f} us",
            f"{ifma['total_cpu_us']:.0f} us",
            f"{ifma['daemon_cpu_us']:.0f} us",
            f"[{colour}]{entry['cpu_ratio_stock_over_ifma']:.2f}[/]",
            f"{entry['required_cpu_ratio']:g}",
            f"{entry['rate_ratio_ifma_over_stock']:.2f}x",
            f"{ifma['mean_batch'] or 0:.2f}",
            str(entry["failures"]),
        )
    return table


def write(options: argparse.Namespace, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=1) + "\n"
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text)
    if options.report:
        options.report.mkdir(parents=True, exist_ok=True)
        (options.report / "results.json").write_text(text)
        drawn = charts.draw_all(found, options.report)
        (options.report / "index.html").write_text(page.page(found, drawn))
        console.print(f"report: {options.report / 'index.html'}")


def main() -> int:
    options = arguments()
    chosen = (plan.quick() if options.quick else plan.full()).only(options.keys)
    cores = len(os.sched_getaffinity(0))
    threads = [] if options.quick else scaling.thread_counts(cores)
    minutes = (chosen.seconds + (scaling.seconds(cores) if threads else 0)) / 60
    console.print(f"{len(chosen.loads)} loads on {len(modes_of_this_host())} modes, about {minutes:.1f} minutes")
    try:
        with interruptible():
            found = document(options, chosen, threads)
    except (NodeError, LoadToolError) as error:
        console.print(f"[bold red]the benchmark failed:[/] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("ended")
        return 130
    console.print(summary_table(found))
    console.print(prediction.table(found["prediction"]))
    write(options, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
