"""Slices to figures: medians, and ratios of slices that are adjacent in time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.records.loads import Load
from benchmarks.records.rig import STOCK, Slice

# Issue 4: bulk transfer and request rate within 3 % of stock Envoy in the same run.
ALLOWED_LOSS = 0.03


def cells(load: Load, slices: Mapping[str, Sequence[Slice]]) -> list[dict[str, Any]]:
    """One cell per contender, stock first; the slices of one round are at one index."""
    stock = slices[STOCK]
    return [_cell(name, load, own, stock) for name, own in slices.items()]


def _cell(name: str, load: Load, own: Sequence[Slice], stock: Sequence[Slice]) -> dict[str, Any]:
    pairs = list(zip(own, stock, strict=True))
    return {
        "mode": name,
        "load": load.name,
        "unit": load.unit,
        "count": load.count,
        "cpu_us": round(median(_cpu_us(one) for one in own), 3),
        "per_s": round(median(_per_s(one) for one in own), 1),
        "client_cpu_share": round(median(one.client_cpu_s / one.report.seconds for one in own), 3),
        "switches": round(median(one.usage.switches / one.report.succeeded for one in own), 4),
        # Above 1: better than stock.
        "cpu_ratio_stock_over_this": round(median(_cpu_us(theirs) / _cpu_us(mine) for mine, theirs in pairs), 4),
        "rate_ratio_this_over_stock": round(median(_per_s(mine) / _per_s(theirs) for mine, theirs in pairs), 4),
    }


def met(cell: Mapping[str, Any]) -> bool:
    """Judged by CPU: on a shared host, the rate says more about its other users."""
    return bool(cell["cpu_ratio_stock_over_this"] >= 1 - ALLOWED_LOSS)


def _cpu_us(one: Slice) -> float:
    """CPU time of the Envoy process per unit; a unit is one request, a body a megabyte."""
    return one.usage.cpu_ns / 1e3 / one.report.succeeded


def _per_s(one: Slice) -> float:
    return one.report.succeeded / one.report.seconds
