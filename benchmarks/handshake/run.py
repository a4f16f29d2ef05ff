"""Runs a plan on a rig: rounds outside, modes inside, so that noise on the host affects all modes alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.handshake.plan import MODES, Load, Plan, headline
from benchmarks.handshake.results import Cell, cell, find
from benchmarks.handshake.rig import Rig, Slice
from deploy.node.processes import NodeError

WARMUP_S = 0.3


def run(rig: Rig, plan: Plan, progress: Callable[[str], None]) -> list[Cell]:
    """All cells, in the plan's order. `progress` gets the name of each load when it starts."""
    cells: list[Cell] = []
    modes = [mode for mode in MODES if mode in rig.contenders]
    rig.add_sidecars(plan.sidecars)
    if plan.callers:
        rig.add_callers()
    for load in plan.loads:
        progress(load.name)
        rate = rate_of(load, cells)
        slices: dict[str, list[Slice]] = {mode: [] for mode in modes}
        for round_number in range(plan.rounds_of(load)):
            for mode in rotated(modes, round_number):
                if round_number == 0:
                    rig.run(mode, load, WARMUP_S, rate)
                slices[mode].append(rig.run(mode, load, plan.slice_s, rate))
        cells += [cell(mode, load, slices[mode]) for mode in modes]
    return cells


def rotated(modes: Sequence[str], by: int) -> list[str]:
    """Makes each mode the first in some round, so that none always runs on a cache that another left."""
    start = by % len(modes)
    return [*modes[start:], *modes[:start]]


def rate_of(load: Load, cells: Sequence[Cell]) -> float | None:
    """Arrivals per second of an open loop: a share of stock's saturation with this key. None for a closed loop."""
    if load.rate_share is None:
        return None
    saturation = find(cells, "stock", headline(load.key))
    if saturation is None:
        raise NodeError(f"the plan has {load.name} before the closed loop of {load.key}")
    return float(saturation["handshakes_per_s"]) * load.rate_share
