"""`offload bench`: how fast this host signs, software against the vector kernels, in a minute or less."""

from __future__ import annotations

import time
from enum import StrEnum
from statistics import median
from typing import Annotated

import typer
from rich.table import Table

from offload import _dataplane, exit_codes
from offload.cli.output import Format, Output, err, fail, out, print_json

BATCHES = range(1, 9)
BACKENDS = ("software", "ifma8")


class Algorithm(StrEnum):
    rsa2048 = "rsa2048"
    rsa3072 = "rsa3072"
    rsa4096 = "rsa4096"
    p256 = "p256"
    p384 = "p384"
    ed25519 = "ed25519"


def bench(
    algorithm: Annotated[
        list[Algorithm] | None, typer.Option("--algorithm", "-a", help="Only this one; may be given several times.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Batches of each size; the median is shown.", min=1, max=1000)] = 7,
    output: Output = Format.table,
) -> None:
    """Measure this host: microseconds for batches of 1 to 8 signatures, software against vector kernels.

    Example: `offload bench --algorithm rsa2048 --algorithm p256`

    No daemon is needed; fresh keys are made for it. The two backends take turns, so that noise on the host hits both.
    """
    _dataplane.harden_process()
    plane = _dataplane.DataPlane(
        {
            "shards": 1,
            "max_wait_us": 0,
            "queue_limit": 64,
            "connection_queue_limit": 64,
            "max_connections": 1,
            "max_streams_per_connection": 1,
            "drain_timeout_ms": 1000,
            "backend": "auto",
        }
    )
    backends = [b for b in BACKENDS if b == "software" or plane.statistics()["backend"] == b]
    results: dict[str, dict[str, list[float]]] = {}
    began = time.monotonic()
    with err.status("measuring") as progress:
        for one in algorithm or list(Algorithm):
            progress.update(f"measuring {one.value}")
            try:
                results[one.value] = _measure(plane, one.value, backends, rounds)
            except (ValueError, RuntimeError) as error:
                fail(f"{one.value} cannot be measured: {error}", exit_codes.FAILED)
    if output is Format.json:
        print_json({"rounds": rounds, "batch_us": results})
        return
    out.print(_table(results))
    if len(backends) == 1:
        out.print("The vector kernels do not run here: the CPU has no AVX-512 IFMA.")
    out.print(f"median of {rounds}, {time.monotonic() - began:.1f} s in all")


def _measure(plane: _dataplane.DataPlane, algorithm: str, backends: list[str], rounds: int) -> dict[str, list[float]]:
    """Median microseconds per batch of 1 to 8, by backend."""
    times: dict[str, list[float]] = {backend: [] for backend in backends}
    for batch in BATCHES:
        for backend in backends:
            times[backend].append(round(median(plane.benchmark(algorithm, batch, backend, rounds)) * 1e6, 1))
    return times


def _table(results: dict[str, dict[str, list[float]]]) -> Table:
    table = Table(title="Microseconds for a batch", title_justify="left")
    table.add_column("algorithm")
    table.add_column("backend")
    for batch in BATCHES:
        table.add_column(str(batch), justify="right")
    table.add_column("one of 8", justify="right")
    table.add_column("speed-up", justify="right")
    table.add_column("pays from", justify="right")
    for algorithm, times in results.items():
        software = times["software"]
        for backend, values in times.items():
            faster = f"{software[-1] / values[-1]:.2f}x" if backend != "software" else ""
            pays = next((str(n) for n, (s, v) in enumerate(zip(software, values, strict=True), 1) if v < s), "never")
            table.add_row(
                algorithm,
                backend,
                *(f"{value:.0f}" for value in values),
                f"{values[-1] / len(values):.1f}",
                faster,
                pays if backend != "software" else "",
            )
    return table
