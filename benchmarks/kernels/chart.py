"""The chart of the kernels: operations per second of a full batch, and time per batch against batch size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

from benchmarks.kernels.contenders import LANES
from benchmarks.kernels.measure import Times

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Colour-blind safe (Okabe and Ito).
STYLE = {
    "ours": ("8 lanes (ours, checked)", "#0072B2", "o"),
    "crypto_mb": ("Intel crypto_mb (unchecked)", "#E69F00", "s"),
    "boringssl": ("BoringSSL", "#009E73", "^"),
    "openssl": ("OpenSSL (cryptography)", "#CC79A7", "v"),
    "libcrypto": ("libcrypto of the system", "#999999", "D"),
}


def draw(results: Mapping[str, Times], title: str, stem: Path) -> list[Path]:
    """Writes stem.png and stem.svg."""
    columns = 3
    rows = -(-len(results) // columns)
    figure = plt.figure(figsize=(15, 4.5 + 3.6 * rows), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1.25] + [1] * rows)
    draw_rates(figure.add_subplot(grid[0, :]), results)
    for i, (algorithm, times) in enumerate(results.items()):
        draw_batches(figure.add_subplot(grid[1 + i // columns, i % columns]), algorithm, times)
    figure.suptitle(title, fontsize=13)
    written = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for path in written:
        figure.savefig(path, dpi=130)
    plt.close(figure)
    return written


def draw_rates(axes: Axes, results: Mapping[str, Times]) -> None:
    names = [n for n in STYLE if any(times.of(n) is not None for times in results.values())]
    width = 0.8 / max(1, len(names))
    for i, name in enumerate(names):
        label, colour, _ = STYLE[name]
        known = [(k, t) for k, times in enumerate(results.values()) if (t := times.of(name)) is not None]
        bars = axes.bar(
            [k + (i - (len(names) - 1) / 2) * width for k, _ in known],
            [LANES * 1e6 / t for _, t in known],
            width,
            label=label,
            color=colour,
        )
        axes.bar_label(bars, [f"{LANES * 1e3 / t:.3g}k" for _, t in known], fontsize=7, padding=1)
    axes.set_yscale("log")
    axes.set_xticks(range(len(results)), list(results))
    axes.set_ylabel("operations per second, one core")
    axes.set_title("Full batches of 8, eight different keys")
    axes.legend(fontsize=8, ncols=3)
    axes.grid(axis="y", alpha=0.3)


def draw_batches(axes: Axes, algorithm: str, times: Times) -> None:
    for name, by_batch in times.us.items():
        label, colour, marker = STYLE[name]
        batches = sorted(by_batch)
        axes.plot(batches, [by_batch[b] for b in batches], marker=marker, ms=4, color=colour, label=label)
    axes.set_title(algorithm)
    axes.set_xlabel("operations in the batch")
    axes.set_ylabel("us per batch")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
