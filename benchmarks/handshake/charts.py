"""The charts of the report: each as a PNG file and as the text of an SVG. Pure but for the files written."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.handshake.plan import (
    KEYS,
    MODES,
    RATE_SHARES,
    SIDECARS,
    Load,
    between_envoys,
    headline,
    many_sidecars,
    open_loop,
)
from benchmarks.handshake.results import Cell, find

MODE_NAMES = {"stock": "stock Envoy", "ifma": "offload, AVX-512 IFMA", "soft": "offload, software"}
# Distinguishable in grey and by the colour-blind too.
COLOURS = {"stock": "#8a8f98", "ifma": "#0b6e4f", "soft": "#e09f3e"}
DAEMON_HATCH = "////"
CALLER_HATCH = "...."
STYLE: Any = {
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "tls-offload",  # equal data gives equal files
    "svg.fonttype": "none",
    "hatch.linewidth": 0.6,
}

Draw = Callable[[Sequence[Cell]], Figure | None]


def _modes(cells: Sequence[Cell]) -> list[str]:
    return [mode for mode in MODES if any(one["mode"] == mode for one in cells)]


def cpu_per_handshake(cells: Sequence[Cell]) -> Figure | None:
    return _stacked(cells, headline, "CPU per handshake: Envoy and daemon")


def cpu_between_envoys(cells: Sequence[Cell]) -> Figure | None:
    return _stacked(cells, between_envoys, "CPU per mTLS handshake: both Envoys and the daemon, proxying included")


def _stacked(cells: Sequence[Cell], load_of: Callable[[str], Load], title: str) -> Figure | None:
    """Bars: Envoy below, the client's Envoy if there is one, the daemon above."""
    keys = [key for key in KEYS if find(cells, "stock", load_of(key))]
    if not keys:
        return None
    modes = _modes(cells)
    figure, axes = plt.subplots(figsize=(9, 4.2))
    width = 0.8 / len(modes)
    hatches: dict[str, str] = {}
    for number, mode in enumerate(modes):
        found = [find(cells, mode, load_of(key)) for key in keys]
        places = [index + (number - (len(modes) - 1) / 2) * width for index in range(len(keys))]
        caller = [one["caller_cpu_us"] or 0 if one else 0 for one in found]
        server = [(one["envoy_cpu_us"] if one else 0) - its for one, its in zip(found, caller, strict=True)]
        daemon = [one["daemon_cpu_us"] if one else 0 for one in found]
        axes.bar(places, server, width * 0.92, color=COLOURS[mode], label=MODE_NAMES[mode])
        tops = server
        parts = (("of it in the client's Envoy", caller, CALLER_HATCH), ("of it in the daemon", daemon, DAEMON_HATCH))
        for name, part, hatch in parts:
            if any(part):
                hatches[name] = hatch
                axes.bar(places, part, width * 0.92, bottom=tops, color="white", edgecolor=COLOURS[mode], hatch=hatch)
                tops = [top + more for top, more in zip(tops, part, strict=True)]
        for place, top in zip(places, tops, strict=True):
            axes.annotate(f"{top:.0f}", (place, top), ha="center", va="bottom", fontsize=7.5, color="#374151")
    for name, hatch in hatches.items():
        axes.bar([0], [0], color="white", edgecolor="#374151", hatch=hatch, label=name)
    axes.set_xticks(range(len(keys)), keys)
    axes.set_ylabel("CPU µs per handshake")
    axes.set_title(title, loc="left")
    axes.legend(frameon=False)
    return figure


def latency_against_rate(cells: Sequence[Cell]) -> Figure | None:
    """p50 and p99 at fixed rates, one panel per key."""
    keys = [key for key in KEYS if find(cells, "stock", open_loop(headline(key), RATE_SHARES[0]))]
    if not keys:
        return None
    figure, panels = plt.subplots(1, len(keys), figsize=(4.2 * len(keys), 3.8), squeeze=False)
    for axes, key in zip(panels[0], keys, strict=True):
        for mode in _modes(cells):
            found = [one for share in RATE_SHARES if (one := find(cells, mode, open_loop(headline(key), share)))]
            rates = [one["rate"] for one in found]
            axes.plot(rates, [one["p50_ms"] for one in found], "o-", color=COLOURS[mode], label=MODE_NAMES[mode])
            axes.plot(rates, [one["p99_ms"] for one in found], "^--", color=COLOURS[mode])
        axes.set_yscale("log")
        axes.set_xlabel("new connections per second")
        axes.set_title(key, loc="left")
    panels[0][0].set_ylabel("handshake, ms (solid p50, dashed p99)")
    panels[0][0].legend(frameon=False, fontsize=8)
    return figure


def batches_against_sidecars(cells: Sequence[Cell]) -> Figure | None:
    """Mean batch size as the same load comes from more Envoys."""
    series: dict[str, list[tuple[int, float]]] = {}
    for key in KEYS:
        found = [(count, find(cells, "ifma", many_sidecars(key, count))) for count in SIDECARS]
        points = [(count, one["mean_batch"]) for count, one in found if one and one["mean_batch"]]
        if len(points) > 1:
            series[key] = points
    if not series:
        return None
    figure, axes = plt.subplots(figsize=(5.5, 3.8))
    for key, points in series.items():
        axes.plot([count for count, _ in points], [batch for _, batch in points], "o-", label=key)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIDECARS, [str(count) for count in SIDECARS])
    axes.set_ylim(0, 8.2)
    axes.set_xlabel("sidecars sharing the daemon, same total rate")
    axes.set_ylabel("operations per batch, mean")
    axes.set_title("Batch fill", loc="left")
    axes.legend(frameon=False)
    return figure


def rate_at_saturation(cells: Sequence[Cell]) -> Figure | None:
    keys = [key for key in KEYS if find(cells, "stock", headline(key))]
    if not keys:
        return None
    modes = _modes(cells)
    figure, axes = plt.subplots(figsize=(9, 3.8))
    width = 0.8 / len(modes)
    for number, mode in enumerate(modes):
        rates = [one["handshakes_per_s"] if (one := find(cells, mode, headline(key))) else 0 for key in keys]
        places = [index + (number - (len(modes) - 1) / 2) * width for index in range(len(keys))]
        bars = axes.bar(places, rates, width * 0.92, color=COLOURS[mode], label=MODE_NAMES[mode])
        axes.bar_label(bars, fmt="%.0f", fontsize=7.5, color="#374151")
    axes.set_xticks(range(len(keys)), keys)
    axes.set_ylabel("handshakes per second")
    axes.set_title("Saturation: one Envoy worker, closed loop", loc="left")
    axes.legend(frameon=False)
    return figure


def against_concurrency(cells: Sequence[Cell]) -> Figure | None:
    """CPU per handshake of the offload, relative to stock, against the number of concurrent connections."""
    figure, axes = plt.subplots(figsize=(5.5, 3.8))
    drawn = False
    for key in KEYS:
        points = []
        for one in cells:
            plain = not (one["mtls"] or one["resumed"]) and one["tls"] == "1.3" and one["sidecars"] == 1
            if one["mode"] == "ifma" and one["key"] == key and plain and one["loop"] == "closed":
                stock = next((s for s in cells if s["mode"] == "stock" and _same_load(s, one)), None)
                if stock:
                    points.append((one["concurrency"], stock["total_cpu_us"] / one["total_cpu_us"]))
        if len(points) > 1:
            drawn = True
            axes.plot(*zip(*sorted(points), strict=True), "o-", label=key)
    if not drawn:
        plt.close(figure)
        return None
    axes.axhline(1, color="#9ca3af", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("connections at once")
    axes.set_ylabel("CPU per handshake, stock / offload")
    axes.set_title("Above 1 the offload saves CPU", loc="left")
    axes.legend(frameon=False)
    return figure


def operations_against_threads(scaling: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Signatures per second of a daemon with more kernel threads, relative to one."""
    counts = sorted({one["kernel_threads"] for one in scaling})
    if len(counts) < 2:
        return None
    figure, axes = plt.subplots(figsize=(5.5, 3.8))
    for key in dict.fromkeys(one["key"] for one in scaling):
        rates = {one["kernel_threads"]: one["operations_per_s"] for one in scaling if one["key"] == key}
        points = [(count, rates[count] / rates[counts[0]]) for count in counts if count in rates]
        axes.plot(*zip(*points, strict=True), "o-", label=f"{key}, {rates[counts[0]]:,} per s with one")
    axes.plot(counts, counts, color="#9ca3af", linewidth=1, label="in proportion")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_yticks(counts, [f"{count}x" for count in counts])
    axes.set_xlabel("kernel threads of the daemon")
    axes.set_ylabel("signatures per second")
    axes.set_title("Scaling with kernel threads", loc="left")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _same_load(one: Cell, other: Cell) -> bool:
    fields = ("key", "tls", "mtls", "two_envoys", "resumed", "sidecars", "concurrency", "rate_share")
    return all(one[name] == other[name] for name in fields)


CHARTS: Mapping[str, Draw] = {
    "cpu_per_handshake": cpu_per_handshake,
    "rate_at_saturation": rate_at_saturation,
    "latency_against_rate": latency_against_rate,
    "batches_against_sidecars": batches_against_sidecars,
    "cpu_ratio_against_concurrency": against_concurrency,
    "cpu_between_envoys": cpu_between_envoys,
}
THREADS_CHART = "operations_against_threads"
NAMES = (*CHARTS, THREADS_CHART)


def draw_all(found: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Writes <name>.png of every chart for which the run has the figures; returns the same charts as SVG, by name."""
    drawn: dict[str, str] = {}
    with matplotlib.rc_context(STYLE):
        for name in NAMES:
            if name == THREADS_CHART:
                figure = operations_against_threads(found.get("scaling", ()))
            else:
                figure = CHARTS[name](found["cells"])
            if figure is None:
                continue
            figure.savefig(folder / f"{name}.png", dpi=150)
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None})
            plt.close(figure)
            drawn[name] = text.getvalue()
    return drawn
