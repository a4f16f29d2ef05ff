"""`offload bench`: what the offload gains on this host, without Envoy and without a running daemon, in 30 seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from offload.backends import BACKENDS, LANES
from offload.bench.prediction import Load, Measured, host_factor, predict
from offload.bench.verdict import Choice, Verdict, judge, summary
from offload.cli.output import Format, Output, err, fail, out, print_json
from offload.reporting import exit_codes

if TYPE_CHECKING:  # native: --version and --help, which need no signature, must work without its libraries
    from offload import _dataplane
    from offload.bench import service

BATCHES = range(1, LANES + 1)
BATCHES_SHOWN = (1, 2, 4, 8)  # in the table, which must fit into 80 columns


class Algorithm(StrEnum):
    rsa2048 = "rsa2048"
    rsa3072 = "rsa3072"
    rsa4096 = "rsa4096"
    p256 = "p256"
    p384 = "p384"
    ed25519 = "ed25519"


def bench(
    algorithm: Annotated[
        list[Algorithm] | None, typer.Option("--algorithm", "-a", help="Measure only this algorithm; repeatable.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="Number of batches of each size; the median is shown.", min=1, max=1000)
    ] = 7,
    output: Output = Format.table,
) -> None:
    """Measure this host and say for which keys the offload pays: kernels, the service over its socket, and batches.

    Example: `offload bench --algorithm rsa2048 --algorithm p256`

    Neither daemon nor Envoy is needed; fresh keys are generated for it. Software and vector kernels take turns, so that
    noise on the host hits both. Then a service like the daemon's is loaded by a native client: as fast as it can, and
    at 60% of that by 1, 8 and 32 simulated sidecars. `python -m benchmarks.handshake` measures with real Envoys.
    """
    from offload import _dataplane

    _dataplane.harden_process()
    wanted = [one.value for one in algorithm or list(Algorithm)]
    began = time.monotonic()
    with err.status("measuring") as progress:
        try:
            backends, kernels = _measure_kernels(wanted, rounds, progress.update)
            services = _measure_service(wanted, progress.update)
        except (ValueError, RuntimeError) as error:
            fail(f"this host cannot be measured: {error}", exit_codes.FAILED)
    verdicts = _judge(kernels, services, len(backends) > 1)
    sentence = summary(verdicts, len(backends) > 1)
    if output is Format.json:
        print_json(
            {
                "rounds": rounds,
                "batch_us": kernels,
                "service": {name: result.as_dict() for name, result in services.items()},
                "verdict": {name: _verdict_dict(verdict) for name, verdict in verdicts.items()},
                "summary": sentence,
            }
        )
        return
    out.print(_table(kernels))
    out.print(_service_table(services))
    out.print(_sidecars_table(services))
    out.print(_verdict_table(verdicts))
    out.print(f"[bold]{sentence}[/]")
    out.print(f"medians of {rounds} batches; {time.monotonic() - began:.0f} s in all", style="dim")


def _judge(
    kernels: dict[str, dict[str, list[float]]], services: dict[str, service.ServiceResult], has_vector_kernels: bool
) -> dict[str, Verdict]:
    measured = {
        name: Measured(one.software_us, one.saturation_cpu_us, one.saturation_per_s, one.saturation_batch)
        for name, one in services.items()
    }
    factor = host_factor({name: one.software_us for name, one in measured.items()})
    processors = len(os.sched_getaffinity(0))
    return {
        name: judge(*(predict(name, load, measured[name], has_vector_kernels, factor, processors) for load in Load))
        for name in kernels
    }


def _measure_kernels(
    algorithms: list[str], rounds: int, say: Callable[[str], None]
) -> tuple[list[str], dict[str, dict[str, list[float]]]]:
    """The backends of this host, and for each algorithm and backend the microseconds of batches of 1 to 8."""
    from offload import _dataplane

    data_plane = _dataplane.DataPlane(
        {
            "shards": 1,
            "max_wait_us": 0,
            "queue_limit": 64,
            "connection_queue_limit": 64,
            "user_queue_limit": 64,
            "max_connections": 1,
            "max_connections_per_user": 1,
            "max_connections_without_identity": 1,
            "user_memory_mib": 1,
            "idle_timeout_ms": 1000,
            "stalled_timeout_ms": 1000,
            "max_streams_per_connection": 1,
            "drain_timeout_ms": 1000,
            "backend": "auto",
        }
    )
    backends = [b for b in BACKENDS if b == "software" or data_plane.statistics()["backend"] == b]
    results: dict[str, dict[str, list[float]]] = {}
    for algorithm in algorithms:
        say(f"kernels: {algorithm}")
        results[algorithm] = _measure(data_plane, algorithm, backends, rounds)
    return backends, results


def _measure_service(algorithms: list[str], say: Callable[[str], None]) -> dict[str, service.ServiceResult]:
    from offload.bench import service

    say("starting a service")
    results: dict[str, service.ServiceResult] = {}
    with service.running(algorithms) as running:
        for algorithm in algorithms:
            say(f"service: {algorithm}")
            results[algorithm] = running.measure(algorithm)
    return results


def _measure(
    data_plane: _dataplane.DataPlane, algorithm: str, backends: list[str], rounds: int
) -> dict[str, list[float]]:
    """Median microseconds per batch of 1 to 8, by backend."""
    times: dict[str, list[float]] = {backend: [] for backend in backends}
    for batch in BATCHES:
        for backend in backends:
            times[backend].append(round(median(data_plane.benchmark(algorithm, batch, backend, rounds)) * 1e6, 1))
    return times


def _narrow(title: str) -> Table:
    """A table that fits into 80 columns with the figures of all key types."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _table(results: dict[str, dict[str, list[float]]]) -> Table:
    table = _narrow("Microseconds for a batch (--output json has all sizes)")
    table.add_column("algorithm", no_wrap=True)
    table.add_column("backend", no_wrap=True)
    for batch in BATCHES_SHOWN:
        table.add_column(f"of {batch}", justify="right", no_wrap=True)
    for column in ("one of 8", "speed-up", "pays from"):
        table.add_column(column, justify="right", no_wrap=True)
    for algorithm, times in results.items():
        software = times["software"]
        for backend, values in times.items():
            faster = f"{software[-1] / values[-1]:.2f}x" if backend != "software" else ""
            pays = next((str(n) for n, (s, v) in enumerate(zip(software, values, strict=True), 1) if v < s), "never")
            table.add_row(
                algorithm,
                backend,
                *(f"{values[batch - 1]:.0f}" for batch in BATCHES_SHOWN),
                f"{values[-1] / len(values):.1f}",
                faster,
                pays if backend != "software" else "",
            )
    return table


def _service_table(results: dict[str, service.ServiceResult]) -> Table:
    table = _narrow("The service over its socket")
    table.add_column("algorithm", no_wrap=True)
    for column in ("at most /s", "batch", "CPU each", "alone p50"):
        table.add_column(column, justify="right", no_wrap=True)
    for algorithm, result in results.items():
        cells = [f"{result.saturation_per_s:,.0f}", f"{result.saturation_batch:.1f}"]
        cells += [f"{result.saturation_cpu_us:.0f} us", f"{result.alone_p50_us:.0f} us"]
        table.add_row(algorithm, *cells)
    return table


def _sidecars_table(results: dict[str, service.ServiceResult]) -> Table:
    from offload.bench import service

    table = _narrow("At 60% of that: mean batch, and p99")
    table.add_column("algorithm", no_wrap=True)
    for sidecars in service.SIDECARS:
        table.add_column(f"{sidecars} sidecar{'s' if sidecars > 1 else ''}", justify="right", no_wrap=True)
    for algorithm, result in results.items():
        cells = [f"{one.mean_batch:.1f}, {one.p99_us / 1e3:.1f} ms" for one in result.sidecars]
        table.add_row(algorithm, *cells)
    return table


def _verdict_table(verdicts: dict[str, Verdict]) -> Table:
    table = _narrow("CPU us per handshake, predicted: stock Envoy, with the offload")
    table.add_column("key", no_wrap=True)
    for column in ("server", "mTLS, both ends", "holds at"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict")
    colours = {Choice.OFFLOAD: "green", Choice.EVEN: "yellow", Choice.ENVOY: "yellow"}
    for algorithm, verdict in verdicts.items():
        table.add_row(
            algorithm,
            *(f"{one.stock_us:.0f}, {one.offload_us:.0f}" for one in (verdict.server, verdict.mtls)),
            f"{verdict.server.stock_per_s:,.0f}/s",
            f"[{colours[verdict.choice]}]{verdict.text}[/]",
        )
    table.caption = "holds at: new connections per second to one worker of stock Envoy, its limit"
    table.caption_justify = "left"
    return table


def _verdict_dict(verdict: Verdict) -> dict[str, object]:
    return {
        "choice": verdict.choice.value,
        "server": verdict.server.as_dict(),
        "mtls": verdict.mtls.as_dict(),
        "text": verdict.text,
    }
