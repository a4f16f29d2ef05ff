"""python -m benchmarks.overhead: what the offload costs besides the signature itself. About half a minute.

1. Daemon CPU per operation besides the kernel, at saturation: the daemon's CPU time, less the time of the kernel
   for the batches that ran, which the daemon measured at its start (CPU time of a batch of 1 to 8 of that key type).
   With a long kernel this is a small difference of large numbers; the short one (P-256) tells more.
2. p50 and p99 of one operation alone: one in flight, from sending it to having the signature.
3. CPU per handshake of the Envoy worker, of Envoy and of Envoy with the daemon, RSA-2048, TLS 1.3: stock Envoy and the
   offload, interleaved.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.handshake import plan, results, rig, run
from deploy import output_paths
from deploy.load import tools, usage
from deploy.node import daemon
from deploy.node.certificates import Authority, Leaf
from deploy.node.daemon import Counters, Daemon
from deploy.node.processes import NodeError, Processes, interruptible

KEYS = ("rsa2048", "p256")
OVERHEAD_TARGET_US = 4.0
WORKER_TARGET_US = 180.0
ROUNDS = 5
SATURATION: Mapping[str, tools.Argument] = {
    "connections": 4,
    "in_flight": 64,
    "batch": 8,
    "duration": 1,
    "warmup": 1000,
}
ALONE: Mapping[str, tools.Argument] = {"connections": 1, "in_flight": 1, "batch": 1, "count": 2000, "warmup": 100}
HANDSHAKES = plan.headline("rsa2048")
# One load, and it is a headline: it uses the second of the two counts of rounds.
PLAN = plan.Plan((HANDSHAKES,), slice_s=0.8, rounds=ROUNDS, headline_rounds=ROUNDS)

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)

BatchTimes = Mapping[str, Sequence[float]]  # backend: microseconds of a batch of 1, 2, ... 8


def kernel_us(counters: Counters, algorithm: str, times: BatchTimes) -> float:
    """CPU time of the kernels for the batches of a span, by the daemon's calibration."""
    return sum(
        times[backend][size - 1] * count
        for (its, backend, _, size), count in counters.batches.items()
        if its == algorithm and count
    )


def calibration(running: Daemon, algorithm: str) -> BatchTimes:
    (one,) = (c for c in running.statistics().classes if c.algorithm == algorithm)
    return {times.backend: list(times.batch_us) for times in one.calibration}


def saturated(running: Daemon, leaf: Leaf) -> dict[str, Any]:
    """Medians over the rounds, per operation in microseconds."""
    times = calibration(running, leaf.key_type)
    rounds = []
    for _ in range(ROUNDS):
        # The daemon's CPU time and its counters cover the same span, including the tool's warm-up.
        counters, cpu = running.counters(), usage.process_cpu_ns(running.pid)
        result = tools.keyload(socket=running.socket, certificate=leaf.certificate_file, **SATURATION)
        cpu, span = usage.process_cpu_ns(running.pid) - cpu, running.counters().since(counters)
        if result["failures"]:
            raise NodeError(f"operations failed: {result['failures_by_reason']}")
        operations = span.answered(leaf.key_type)
        kernel = kernel_us(span, leaf.key_type, times) / operations
        rounds.append((cpu / 1e3 / operations, kernel, result["operations_per_s"], span.mean_batch(leaf.key_type)))
    cpu_us, kernel, rate, batch = (median(values) for values in zip(*rounds, strict=True))
    return {
        "operations_per_s": round(rate),
        "mean_batch": round(batch, 2),
        "daemon_cpu_us": round(cpu_us, 2),
        "kernel_us": round(kernel, 2),
        "overhead_us": round(median(cpu - kernel for cpu, kernel, _, _ in rounds), 2),
    }


def alone(running: Daemon, leaf: Leaf) -> dict[str, Any]:
    """One operation at a time; the round with the lowest p99, since load on a shared host disturbs the others."""
    rounds = [
        tools.keyload(socket=running.socket, certificate=leaf.certificate_file, **ALONE)["latency_ms"]
        for _ in range(ROUNDS)
    ]
    best = min(rounds, key=lambda latency: latency["p99"])
    return {"p50_us": round(best["p50"] * 1e3, 1), "p99_us": round(best["p99"] * 1e3, 1)}


def of_the_daemon(folder: Path) -> dict[str, dict[str, Any]]:
    authority = Authority(folder / "ca")
    leaves = [authority.issue(key, key, folder / "keys") for key in KEYS]
    with Processes(folder) as processes:
        running = daemon.start(processes, "daemon", leaves, folder / "run")
        return {leaf.key_type: saturated(running, leaf) | alone(running, leaf) for leaf in leaves}


def of_envoy(folder: Path) -> dict[str, dict[str, float]]:
    """RSA-2048, TLS 1.3, 64 concurrent connections."""
    modes = ("stock", "ifma") if machine.machine()["avx512_ifma"] else ("stock", "soft")
    with Processes(folder) as processes:
        cells = run.run(rig.Rig(processes, folder, modes), PLAN, lambda _: None)
    found = {}
    for mode in modes:
        cell = results.find(cells, mode, HANDSHAKES)
        if cell is None or cell["failures"]:
            raise NodeError(f"{mode}: {cell and cell['failures_by_reason']}")
        workers = sum(us for name, us in cell["threads_cpu_us"].items() if name.startswith("wrk:"))
        found[mode] = {
            "worker_us": round(workers, 1),
            "envoy_us": cell["envoy_cpu_us"],
            "total_us": cell["total_cpu_us"],
        }
        found[mode]["handshakes_per_s"] = cell["handshakes_per_s"]
    return found


def show(found: Mapping[str, Any]) -> None:
    table = Table(title="Daemon: CPU per operation at saturation, and one operation alone", title_justify="left")
    for column in ("key", "operations/s", "batch", "CPU", "kernel", f"beside it (goal {OVERHEAD_TARGET_US:g})"):
        table.add_column(column, justify="left" if column == "key" else "right")
    for column in ("alone p50", "alone p99"):
        table.add_column(column, justify="right")
    for key, one in found["daemon"].items():
        colour = "green" if one["overhead_us"] <= OVERHEAD_TARGET_US else "red"
        table.add_row(
            key,
            f"{one['operations_per_s']:,}",
            f"{one['mean_batch']:.2f}",
            f"{one['daemon_cpu_us']:.2f} us",
            f"{one['kernel_us']:.2f} us",
            f"[{colour}]{one['overhead_us']:.2f} us[/]",
            f"{one['p50_us']:.0f} us",
            f"{one['p99_us']:.0f} us",
        )
    console.print(table)
    table = Table(title="CPU per handshake, RSA-2048, TLS 1.3, 64 connections at once", title_justify="left")
    for column in ("", f"worker (goal {WORKER_TARGET_US:g})", "Envoy", "Envoy and daemon", "handshakes/s"):
        table.add_column(column, justify="left" if not column else "right")
    for mode, one in found["envoy"].items():
        microseconds = (f"{one[name]:.0f} us" for name in ("worker_us", "envoy_us", "total_us"))
        table.add_row(mode, *microseconds, f"{one['handshakes_per_s']:,.0f}")
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=output_paths.file, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tls-offload-bench-"))
    try:
        with interruptible(), console.status("measuring"):
            found = {"daemon": of_the_daemon(folder), "envoy": of_envoy(folder), "machine": machine.machine()}
    except (NodeError, tools.LoadToolError) as error:
        console.print(f"[bold red]the measurement failed:[/] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(found)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
