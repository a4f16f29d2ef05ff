"""From slices to cells, and from cells to the summary. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, TypeVar

from benchmarks.handshake.plan import KEYS, Load, headline
from benchmarks.handshake.rig import Slice
from deploy.load.latencies import Latencies

Cell = dict[str, Any]

# Issue 5: server TLS 1.3, no resumption, concurrency 64; minimum of total CPU per handshake, stock over ours.
REQUIRED_CPU_RATIO = {"rsa2048": 2.5, "rsa3072": 4.0, "rsa4096": 4.5, "p256": 1.0, "p384": 2.0}


def cell(mode: str, load: Load, slices: Sequence[Slice]) -> Cell:
    """One cell: medians over the slices, latencies of all of them together."""
    latencies = Latencies()
    for one in slices:
        latencies.merge(Latencies.of(one.load["handshake_ms"]))
    envoy_us = median(_per_handshake(one.envoy.cpu_ns + one.caller.cpu_ns, one) for one in slices)
    caller_us = median(_per_handshake(one.caller.cpu_ns, one) for one in slices) if load.two_envoys else None
    daemon_us = median(_per_handshake(one.daemon.cpu_ns, one) for one in slices)
    sizes = _batch_sizes(slices)
    batches = sum(sizes.values())
    return {
        "mode": mode,
        "name": load.name,
        **asdict(load),
        "loop": "closed" if load.rate_share is None else "open",
        "rate": median(one.load["rate"] for one in slices),
        "handshakes": sum(one.load["handshakes"] for one in slices),
        "failures": sum(one.load["failures"] for one in slices),
        "failures_by_reason": _added(one.load["failures_by_reason"] for one in slices),
        "handshakes_per_s": round(median(one.load["handshakes_per_s"] for one in slices), 1),
        "envoy_cpu_us": round(envoy_us, 2),
        "caller_cpu_us": None if caller_us is None else round(caller_us, 2),  # part of envoy_cpu_us: the client's Envoy
        "daemon_cpu_us": round(daemon_us, 2),
        "total_cpu_us": round(median(_per_handshake(_total_ns(s), s) for s in slices), 2),
        "envoy_cpu_share": round(median(one.envoy.cpu_ns / 1e9 / one.load["elapsed_s"] for one in slices), 3),
        "client_cpu_us": round(median(one.load["client_cpu_us_per_handshake"] for one in slices), 2),
        "client_cpu_share": round(median(one.load["client_cpu_share"] for one in slices), 3),
        "threads_cpu_us": _threads(slices),
        "envoy_switches": round(
            median((one.envoy.switches + one.caller.switches) / one.load["handshakes"] for one in slices), 2
        ),
        "daemon_switches": round(median(one.daemon.switches / one.load["handshakes"] for one in slices), 2),
        **{f"p{name}_ms": round(latencies.quantile(share), 4) for name, share in _QUANTILES.items()},
        "mean_batch": round(sum(size * n for size, n in sizes.items()) / batches, 3) if batches else None,
        "batch_sizes": {str(size): n for size, n in sizes.items()} if batches else None,
        "refused": _added(one.counters.refused() for one in slices if one.counters),
    }


_QUANTILES = {"50": 0.5, "90": 0.9, "99": 0.99, "99_9": 0.999}


def _total_ns(one: Slice) -> int:
    return one.envoy.cpu_ns + one.caller.cpu_ns + one.daemon.cpu_ns


def _per_handshake(nanoseconds: int, one: Slice) -> float:
    # A primed session cost a handshake too: with resumption its CPU time is included, so it is counted.
    return nanoseconds / 1e3 / int(one.load["handshakes"] + one.load["sessions_primed"])


def _threads(slices: Sequence[Slice]) -> dict[str, float]:
    """CPU per handshake by thread name; anything below 0.1 us is left out."""
    sums = [(one, (one.envoy + one.caller + one.daemon).thread_ns) for one in slices]
    found = {}
    for name in sorted({name for _, threads in sums for name in threads}):
        per_slice = [_per_handshake(threads.get(name, 0), one) for one, threads in sums]
        if median(per_slice) >= 0.1:
            found[name] = round(median(per_slice), 2)
    return found


def _batch_sizes(slices: Sequence[Slice]) -> dict[int, int]:
    return _added(one.counters.batch_sizes() for one in slices if one.counters)


K = TypeVar("K")


def _added(counts: Iterable[Mapping[K, int]]) -> dict[K, int]:
    total: dict[K, int] = {}
    for one in counts:
        for key, count in one.items():
            total[key] = total.get(key, 0) + count
    return total


def find(cells: Iterable[Cell], mode: str, load: Load) -> Cell | None:
    """The cell of that mode and load."""
    wanted = {"mode": mode, **asdict(load)}
    return next((one for one in cells if all(one[name] == value for name, value in wanted.items())), None)


def summary(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Per key, from the headline cells; keys that were not measured are left out."""
    found = {}
    for key in KEYS:
        stock, ifma, soft = (find(cells, mode, headline(key)) for mode in ("stock", "ifma", "soft"))
        if not stock or not ifma:
            continue
        ratio = stock["total_cpu_us"] / ifma["total_cpu_us"]
        found[key] = {
            "cpu_ratio_stock_over_ifma": round(ratio, 3),
            "cpu_ratio_stock_over_soft": round(stock["total_cpu_us"] / soft["total_cpu_us"], 3) if soft else None,
            "rate_ratio_ifma_over_stock": round(ifma["handshakes_per_s"] / stock["handshakes_per_s"], 3),
            "required_cpu_ratio": REQUIRED_CPU_RATIO[key],
            "failures": stock["failures"] + ifma["failures"],
            "met": ratio >= REQUIRED_CPU_RATIO[key] and not stock["failures"] and not ifma["failures"],
        }
    return found
