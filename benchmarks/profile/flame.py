"""Draws a call tree: width is CPU time, and callees are above their caller. Pure but for the file written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.collections import PatchCollection
from matplotlib.patches import Patch, Rectangle

from benchmarks.handshake.charts import STYLE
from benchmarks.profile.stacks import KERNEL, Calls

WIDTH, ROW = 13.0, 0.2  # inches, of the figure and of a row
LEAST_SHARE = 0.002  # narrower frames are left out
CHARACTER = 0.0058  # width of a character as a share of the whole
COLOURS = {  # by what the frame belongs to
    "Envoy": "#b8bcc4",
    "our module": "#7cc4a4",
    "our daemon": "#0b9e6f",
    "kernel": "#f0c987",
    "other libraries": "#dfe3ea",
}


@dataclass(frozen=True)
class Box:
    calls: Calls
    start: float  # 0 to 1
    width: float
    row: int


def owner(place: str) -> str:
    """Whose code a file contains: a key of COLOURS."""
    if place == KERNEL:
        return "kernel"
    if place.startswith("libtls_offload"):
        return "our module"
    if place.startswith(("_dataplane", "_kernels")):
        return "our daemon"
    return "Envoy" if place.startswith("envoy") else "other libraries"


def boxes(calls: Calls, start: float = 0.0, width: float = 1.0, row: int = 0) -> Iterator[Box]:
    """All frames that are wide enough, the widest to the left."""
    yield Box(calls, start, width, row)
    for one in sorted(calls.below.values(), key=lambda c: (-c.samples, c.frame.name)):
        its = width * one.samples / calls.samples
        if its >= LEAST_SHARE:
            yield from boxes(one, start, its, row + 1)
        start += its


def label(box: Box) -> str:
    """As much of the name as fits; empty if that would say nothing."""
    room = int(box.width / CHARACTER)
    name = f"{box.calls.frame.name} {box.width:.0%}" if box.width > 0.05 else box.calls.frame.name
    if len(name) <= room:
        return name
    return name[: room - 1] + "…" if room >= 4 else ""


def draw(calls: Calls, title: str, path: Path) -> None:
    """Writes the picture, in the format given by the file's extension."""
    drawn = list(boxes(calls))
    rows = 1 + max(box.row for box in drawn)
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(WIDTH, ROW * rows + 0.9))
        axes.add_collection(
            PatchCollection(
                [Rectangle((box.start, box.row), box.width, 1) for box in drawn],
                facecolors=[_colour(box) for box in drawn],
                edgecolors="white",
                linewidths=0.5,
            )
        )
        for box in drawn:
            if text := label(box):
                axes.text(box.start + 0.001, box.row + 0.5, text, fontsize=6.5, va="center", family="monospace")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, rows)
        axes.axis("off")
        axes.set_title(f"{title} ({calls.samples:,} samples)", loc="left", fontsize=10)
        handles = [Patch(color=colour, label=name) for name, colour in COLOURS.items()]
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
        plt.close(figure)


def _colour(box: Box) -> str:
    return "#ffffff" if not box.calls.frame.place else COLOURS[owner(box.calls.frame.place)]
