"""Our kernels against Intel's crypto_mb, OpenSSL and BoringSSL, interleaved in one run on one core.

    python -m benchmarks.kernels --json build/kernels.json

writes the times, draws build/kernels.png and build/kernels.svg, and prints tables: full batches, smaller ones, the part
of the processor's limit, and lone operations on a warm and on a cold core (cold.py). About two minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.kernels.cold import IDLE_US, STATES, ColdTimes, measure_cold
from benchmarks.kernels.contenders import ALGORITHMS, LANES, plan
from benchmarks.kernels.measure import Times, cpu_name, measure, pin, versions
from benchmarks.kernels.ports import COUNTS, Ports, products
from deploy import output_paths


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=output_paths.file, metavar="FILE", help="the times; the charts stand beside it")
    parser.add_argument("--rounds", type=int, default=25, help="rounds per algorithm; the fastest counts (default 25)")
    parser.add_argument("--core", type=int, help="the core to run on (default: the last one)")
    parser.add_argument("--no-chart", action="store_true", help="no PNG and SVG")
    parser.add_argument("algorithms", nargs="*", metavar="ALGORITHM", help=f"of {', '.join(ALGORITHMS)} (default: all)")
    chosen = parser.parse_args()
    for name in chosen.algorithms:
        if name not in ALGORITHMS:
            parser.error(f"there is no algorithm {name}; there are {', '.join(ALGORITHMS)}")
    return chosen


def table(results: dict[str, Times]) -> Table:
    made = Table(title="Microseconds per batch of 8, eight different keys (the fastest of all rounds)")
    made.add_column("")
    for heading in (
        "ours",
        "crypto_mb",
        "BoringSSL",
        "OpenSSL",
        "libcrypto",
        "ours/crypto_mb",
        "OpenSSL/ours",
        "4 of 8",
    ):
        made.add_column(heading, justify="right")

    def us(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    def ratio(a: float | None, b: float | None) -> str:
        return "-" if a is None or b is None else f"{a / b:.3f}"

    for algorithm, t in results.items():
        ours = t.of("ours")
        made.add_row(
            algorithm,
            *(us(t.of(n)) for n in ("ours", "crypto_mb", "boringssl", "openssl", "libcrypto")),
            ratio(ours, t.of("crypto_mb")),
            ratio(t.of("openssl"), ours),
            ratio(t.of("ours", 4), ours),
        )
    return made


def batch_table(results: dict[str, Times]) -> Table:
    made = Table(title="Ours: microseconds per batch, by operations in it")
    made.add_column("")
    for batch in range(1, LANES + 1):
        made.add_column(str(batch), justify="right")
    for algorithm, t in results.items():
        row = [t.of("ours", batch) for batch in range(1, LANES + 1)]
        made.add_row(algorithm, *("-" if value is None else f"{value:.1f}" for value in row))
    return made


def port_table(results: dict[str, Times], ports: Ports) -> Table:
    title = (
        f"Ours against the ports, per us: {ports.wide:.0f} vpmadd52 of 512 bits ({ports.narrow:.0f} of 256), "
        f"{ports.additions:.0f} additions of 512"
    )
    made = Table(title=title)
    for heading in (
        "",
        "multiplications",
        "instructions",
        "multiplier",
        "instructions",
        "ours",
        "limit by",
        "part of it",
        "OpenSSL/ours, at most",
    ):
        made.add_column(heading, justify="right" if heading else "left")
    for algorithm, t in results.items():
        counts = COUNTS[products(plan(algorithm))][algorithm]
        ours, openssl, limit = t.of("ours"), t.of("openssl"), ports.limit(counts)
        if ours is None or limit is None:
            continue
        made.add_row(
            algorithm,
            f"{counts.multiplications:,}",
            f"{counts.instructions:,}",
            f"{counts.multiplications / ports.wide:.1f} us",
            f"{counts.instructions / ports.additions:.1f} us",
            f"{ours:.1f} us",
            limit.by,
            f"{limit.us / ours:.0%}",
            "-" if openssl is None else f"{openssl / limit.us:.2f}",
        )
    return made


def cold_table(results: dict[str, ColdTimes]) -> Table:
    title = (
        f"A lone operation: microseconds (median) warm, after {IDLE_US / 1000:g} ms of idleness, after a cache sweep"
    )
    made = Table(title=title)
    made.add_column("")
    for name in ("ours", "BoringSSL", "OpenSSL"):
        for state in STATES:
            made.add_column(f"{name} {state}", justify="right")
    for algorithm, times in results.items():
        row = [times.of(name.lower(), state) for name in ("ours", "BoringSSL", "OpenSSL") for state in STATES]
        made.add_row(algorithm, *("-" if value is None else f"{value:.1f}" for value in row))
    return made


def main() -> int:
    chosen = arguments()
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    core = pin(chosen.core)
    console.print(f"{cpu_name()}, core {core}; {chosen.rounds} rounds per algorithm")
    results: dict[str, Times] = {}
    cold: dict[str, ColdTimes] = {}
    ports = Ports()
    for algorithm in chosen.algorithms or ALGORITHMS:
        with console.status(algorithm) as status:

            def progress(turn: int, algorithm: str = algorithm) -> None:
                status.update(f"{algorithm}: round {turn + 1} of {chosen.rounds}")
                ports.look()

            results[algorithm] = measure(algorithm, chosen.rounds, progress=progress)
            status.update(f"{algorithm}: lone operations on a cold core")
            cold[algorithm] = measure_cold(algorithm, chosen.rounds)
    console.print(table(results), batch_table(results))
    if ports.wide:
        console.print(port_table(results, ports))
    console.print(cold_table(cold))
    reasons = {f"{name}: {why}" for t in results.values() for name, why in t.missing.items()}
    for reason in sorted(reasons):
        console.print(f"not measured: {reason}")
    if chosen.json is not None:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        document: dict[str, Any] = {
            name: t.as_json() | ports.of_algorithm(name) | {"cold": cold[name].as_json()} for name, t in results.items()
        }
        document |= {"cpu": cpu_name(), "versions": versions(), "rounds": chosen.rounds, "ports": ports.as_json()}
        chosen.json.write_text(json.dumps(document, indent=2) + "\n")
        console.print(f"times: {chosen.json}")
        if not chosen.no_chart:
            from benchmarks.kernels.chart import draw

            for path in draw(results, f"Private-key operations on {cpu_name()}, one core", chosen.json.with_suffix("")):
                console.print(f"chart: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
