"""python -m benchmarks.overhead: what the offload costs besides the signature itself. Less than a minute.

1. Daemon CPU per operation besides the kernel, at saturation: the daemon's CPU time, less the time of the kernel
   for the batches that ran, which the daemon measured at its start (CPU time of a batch of 1 to 8 of that key type).
   With a long kernel this is a small difference of large numbers; the short one (P-256) tells more.
2. p50 and p99 of one operation alone: one in flight, from sending it to having the signature.
3. CPU per handshake of the Envoy worker, of Envoy and of Envoy with the daemon, RSA-2048, TLS 1.3: stock Envoy and the
   offload, interleaved.
4. CPU of the daemon's kernel threads and of its front per operation at 30% of stock's limit, where each operation comes
   alone to cores that have been idle or with other processes, beside a lone operation of the kernel run back to back:
   behind Envoy, and from keyload at the same rate.
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
from benchmarks.kernels.cold import FromC
from benchmarks.kernels.contenders import Unavailable
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
QUIET_SHARE = 0.3
QUIET_TARGET = 1.3
QUIET = plan.open_loop(HANDSHAKES, QUIET_SHARE)
PLAN = plan.Plan((HANDSHAKES, QUIET), slice_s=0.8, rounds=ROUNDS, headline_rounds=ROUNDS)
LONE_OPERATIONS = 50

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


def lone_us(algorithm: str, backend: str) -> float:
    """CPU time of a lone operation of the kernel, back to back: the median."""
    contender = FromC("lone", backend, algorithm)
    samples = [contender.sample("warm")[1] for _ in range(LONE_OPERATIONS)]
    return median(cpu for cpu in samples if cpu is not None)


def threads_us(threads: Mapping[str, float]) -> dict[str, float]:
    """Of CPU by thread name: the kernel threads together, and the front."""
    shards = sum(us for name, us in threads.items() if name.startswith("offload-shard"))
    return {"shards_us": round(shards, 1), "front_us": round(threads.get("offload-front", 0.0), 1)}


def of_the_daemon(folder: Path) -> dict[str, dict[str, Any]]:
    authority = Authority(folder / "ca")
    leaves = [authority.issue(key, key, folder / "keys") for key in KEYS]
    with Processes(folder) as processes:
        running = daemon.start(processes, "daemon", leaves, folder / "run")
        return {leaf.key_type: saturated(running, leaf) | alone(running, leaf) for leaf in leaves}


def quiet(running: Daemon, leaf: Leaf, rate: float) -> dict[str, float]:
    """Operations that come alone, at that rate, from keyload: CPU per operation by thread, medians over the rounds."""
    rounds = []
    for _ in range(ROUNDS):
        counters, before = running.counters(), usage.usage(running.pid)
        result = tools.keyload(socket=running.socket, certificate=leaf.certificate_file, rate=rate, duration=1)
        used, span = usage.usage(running.pid) - before, running.counters().since(counters)
        if result["failures"]:
            raise NodeError(f"operations failed: {result['failures_by_reason']}")
        operations = span.answered(leaf.key_type)
        found = threads_us({name: ns / 1e3 / operations for name, ns in used.thread_ns.items()})
        rounds.append((found["shards_us"], found["front_us"], used.switches / operations))
    return {
        name: round(median(values), 1)
        for name, values in zip(("shards_us", "front_us", "switches"), zip(*rounds, strict=True), strict=True)
    }


def of_envoy(folder: Path) -> dict[str, Any]:
    """RSA-2048, TLS 1.3: 64 concurrent connections, and 30% of stock's limit; the latter from keyload too."""
    ours, backend = ("ifma", "ifma8") if machine.machine()["avx512_ifma"] else ("soft", "software")
    with Processes(folder) as processes:
        contenders = rig.Rig(processes, folder, ("stock", ours))
        lone_before = lone_us(QUIET.key, backend)
        cells = run.run(contenders, PLAN, lambda _: None)
        envoy = {mode: of_cell(found_cell(cells, mode, HANDSHAKES)) for mode in ("stock", ours)}
        behind_envoy = found_cell(cells, ours, QUIET)
        running = contenders.contenders[ours].daemon
        assert running is not None
        leaf = next(leaf for leaf in contenders.leaves if leaf.name == QUIET.key)
        from_keyload = quiet(running, leaf, behind_envoy["rate"])
        lone = (lone_before + lone_us(QUIET.key, backend)) / 2
    shares = threads_us(behind_envoy["threads_cpu_us"]) | {"switches": behind_envoy["daemon_switches"]}
    alone: dict[str, Any] = {"rate": round(behind_envoy["rate"]), "lone_us": round(lone, 1)}
    for source, threads in (("envoy", shares), ("keyload", from_keyload)):
        alone[source] = threads | {"shards_over_lone": round(threads["shards_us"] / lone, 3)}
    return {"envoy": envoy, "quiet": alone}


def found_cell(cells: Sequence[results.Cell], mode: str, load: plan.Load) -> results.Cell:
    cell = results.find(cells, mode, load)
    if cell is None or cell["failures"]:
        raise NodeError(f"{mode}: {cell and cell['failures_by_reason']}")
    return cell


def of_cell(cell: results.Cell) -> dict[str, float]:
    workers = sum(us for name, us in cell["threads_cpu_us"].items() if name.startswith("wrk:"))
    return {
        "worker_us": round(workers, 1),
        "envoy_us": cell["envoy_cpu_us"],
        "total_us": cell["total_cpu_us"],
        "handshakes_per_s": cell["handshakes_per_s"],
    }


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
    alone = found["quiet"]
    title = f"Daemon: CPU per RSA-2048 operation at {alone['rate']} a second, {QUIET_SHARE:.0%} of stock's limit"
    table = Table(title=title, title_justify="left")
    for column in ("from", "kernel alone", "shards", f"shards / kernel (goal {QUIET_TARGET:g})", "front", "switches"):
        table.add_column(column, justify="left" if column == "from" else "right")
    for source in ("envoy", "keyload"):
        one = alone[source]
        colour = "green" if one["shards_over_lone"] <= QUIET_TARGET else "red"
        table.add_row(
            source,
            f"{alone['lone_us']:.0f} us",
            f"{one['shards_us']:.0f} us",
            f"[{colour}]{one['shards_over_lone']:.2f}[/]",
            f"{one['front_us']:.0f} us",
            f"{one['switches']:.1f}",
        )
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=output_paths.file, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tls-offload-bench-"))
    try:
        with interruptible(), console.status("measuring"):
            found = {"daemon": of_the_daemon(folder), **of_envoy(folder), "machine": machine.machine()}
    except (NodeError, tools.LoadToolError, Unavailable) as error:
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
